//! The whole core in a simulated world: virtual time, processes by behaviour, news that is late and
//! out of order. Each seed draws a policy, the faults of its world and everything that happens in it;
//! first all goes wrong and nothing unsafe may follow, then the world is healed and all workers must
//! come to be ready, then it is stopped and must leave in time with nothing left behind.
//!
//! `SEEDS=100000` runs so many (from `FROM` on); `SEED=7` runs that one and prints its whole trace.
//! `make fuzz` has what is drawn searched for by what it leads to (fuzz/).
#![cfg(any(test, fuzzing))]
#![cfg_attr(fuzzing, no_main, allow(dead_code, unused_imports))]
// A test that cannot go on has failed: see clippy.toml, which does not know that this is only that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::string_slice, clippy::unreachable)]

mod audit;
mod carrying;
mod checking;
mod claims;
mod closing;
mod cover;
mod crashes;
mod crashing;
mod deeds;
mod draw;
mod failing;
mod hanging;
mod judge;
mod kernel;
mod lossless;
mod net;
mod nuisances;
mod own;
mod plan;
mod prng;
mod records;
mod reloading;
mod reloads;
mod resizing;
mod rotation;
mod shell;
mod sizes;
mod sockets;
mod stories;
mod swapping;
mod swaps;
mod trace;
mod upgrading;
mod watching;
mod world;

use cover::{Cover, Mark};
use minicluster::core::Why;
use prng::Prng;
use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::{Duration, Instant};
use world::World;

/// How many seeds `cargo test` runs.
const SEEDS: u64 = 3000;
/// How much of a failing run is printed.
const LINES: usize = 200;

/// One life from beginning to end.
fn live(mut rng: Prng, summary: &mut String) -> Cover {
    let policy = draw::policy(&mut rng);
    let faults = draw::faults(&mut rng, &policy);
    *summary = format!("{policy:?}\n{faults:?}");
    let early = faults.stopped_early;
    let mut world = World::new(policy, faults, rng);
    world.begin();
    world.chaos();
    if early && world.judge.stopping() {
        world.cover.mark(Mark::StoppedInChaos);
    } else if !world.judge.stopping() {
        converge(&mut world);
    }
    leave(&mut world);
    world.cover
}

/// Phase two: in a healed world all workers come to be ready, and then nothing happens any more.
fn converge(world: &mut World) {
    world.heal();
    let limit = world.convergence();
    let all =
        |w: &World| w.judge.ready() + w.judge.resting() == w.judge.wanted && w.judge.none_above();
    // Of one generation, and nothing under way.
    let one = |w: &World| w.judge.rollout.is_none() && w.judge.all_are_of_one();
    // With --watchdog workers have to speak for ever, and the master has to listen; with --hang-timeout
    // it looks for ever; and who ages is replaced for ever.
    let recycle = world.policy.recycle;
    let moves = world.policy.watchdog.is_some() || recycle.age.is_some() || recycle.rss.is_some();
    let quiet = !moves && world.policy.hang_timeout.is_none();
    let done = |w: &World| w.judge.stopping() || (all(w) && one(w) && (w.still() || moves));
    let converged = world.run_until(limit, done);
    assert!(converged, "not converged {limit:?} after the healing");
    if world.judge.stopping() {
        return;
    }
    world.cover.mark(Mark::Converged);
    let ages = recycle.age.is_some();
    world.run(Duration::from_secs(match quiet {
        true => 600,
        false if ages => 40,
        false => 100,
    }));
    if world.judge.stopping() {
        return;
    }
    // (What was asked for before may have been heard of after that.)
    world.run_until(limit, |w| w.judge.stopping() || w.judge.waiting() == 0);
    if world.judge.stopping() {
        return;
    }
    assert_eq!(world.judge.waiting(), 0, "somebody still waits");
    if !quiet {
        let calm = world.run_until(limit, |w| w.judge.swap.is_none() && w.judge.nobody_goes());
        // (Where they age faster than they are replaced there is always one.)
        assert!(calm || recycle.age.is_some(), "a swap has no end");
    }
    assert!(all(world), "ready workers were lost");
    world.judge.nobody_is_due(world.now, limit, quiet);
    world.no_queue_is_forgotten();
    world.old_lanes_are_gone();
    world.own_sockets_serve();
    if !quiet {
        return;
    }
    // (But to ask what the operator wants asked.)
    match world.cluster.deadline() {
        None => world.cover.mark(Mark::Quiescent),
        Some((_, Why::Check(check))) => assert!(world.judge.is_wanted(check)),
        Some((_, why)) => panic!("an idle master wakes up: {why:?}"),
    }
}

/// Phase three: it is stopped, if it is not on its way already.
fn leave(world: &mut World) {
    if !world.judge.stopping() {
        world.let_clients_come(Duration::from_secs(2));
        let policy = world.policy.clone();
        let stops = nuisances::stops(&mut world.rng, Duration::ZERO, &policy);
        for (at, what) in stops {
            world.after(at, world::Happening::Mischief(what));
        }
    }
    let limit = world.stop_limit() * 2 + Duration::from_secs(3 * 3600);
    let left = world.run_until(limit, |w| w.judge.finished.is_some());
    assert!(left, "never left: {:?}", world.cluster.phase());
}

/// Panics are told in a few lines: the invariants print all state there is.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let text = info.to_string();
            let lines: Vec<&str> = text.lines().take(4).collect();
            print(&format!("{}\n", lines.join("\n")));
        }));
    });
}

/// To the real standard error: what a replay prints must not be swallowed by the test harness.
fn print(text: &str) {
    // Nobody to tell if stderr is closed.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The first line of what a panic said.
fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = match (
        payload.downcast_ref::<&str>(),
        payload.downcast_ref::<String>(),
    ) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        (None, None) => "it panics",
    };
    text.lines().next().unwrap_or_default().to_string()
}

/// Runs one seed; a failing one is run again for its trace.
fn run(seed: u64) -> Cover {
    let mut summary = String::new();
    let result = panic::catch_unwind(AssertUnwindSafe(|| live(Prng::new(seed), &mut summary)));
    match result {
        Ok(cover) => cover,
        Err(_) => {
            trace::start();
            let again =
                panic::catch_unwind(AssertUnwindSafe(|| live(Prng::new(seed), &mut summary)));
            let why = match again {
                Err(payload) => message(payload.as_ref()),
                Ok(_) => "NOT REPEATABLE".to_string(),
            };
            print(&format!(
                "{}\n\n{summary}\nseed {seed} fails: {why}\n(SEED={seed} runs it alone)\n",
                trace::stop(LINES)
            ));
            panic!("seed {seed} fails: {why}");
        }
    }
}

fn env_number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn a_swarm_of_seeds() {
    quiet_panics();
    if let Some(seed) = env_number("SEED") {
        trace::start();
        let mut summary = String::new();
        let result = panic::catch_unwind(AssertUnwindSafe(|| live(Prng::new(seed), &mut summary)));
        print(&format!("{}\n{summary}\n", trace::stop(usize::MAX)));
        assert!(result.is_ok(), "seed {seed} fails");
        return;
    }
    let asked = env_number("SEEDS");
    let mut cover = Cover::default();
    let begun = Instant::now();
    let seeds = asked.unwrap_or(SEEDS);
    let from = env_number("FROM").unwrap_or(0);
    for seed in from..from + seeds {
        cover.add(&run(seed));
    }
    let took = begun.elapsed();
    if asked.is_some() {
        let each = took.as_secs_f64() * 1000.0 / seeds as f64;
        print(&format!(
            "{}{seeds} seeds, {each:.2} ms each\n",
            cover.table()
        ));
    }
    let missing = cover.missing();
    if seeds >= SEEDS {
        assert!(missing.is_empty(), "never seen: {missing:?}");
    }
}

// Bytes are what happens: the policy, the faults of the world, each event and when it comes.
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    live(Prng::of(bytes), &mut String::new());
});
