//! How a process behaves: drawn when it is forked, from the kind of program it is. A plan is a list
//! of steps with the time before each, and how it takes a stop signal; what it cannot know (which
//! lane it gets, who kills it when) the kernel of the world adds.

use crate::prng::Prng;
use minicluster::core::{Addr, Given};
use minicluster::core::{Exit, Policy, ReadyRule, Snag, Takeover, Word};
use std::time::Duration;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident,)*) => {
        /// What kind of program it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $kind),* }
        impl Kind {
            /// All there are.
            pub const ALL: &[Kind] = &[$(Kind::$kind),*];
        }
    };
}

kinds! {
    /// Listens soon, serves, stops when asked.
    Good,
    /// Takes its time to listen.
    Slow,
    /// Ends by itself with a failure: at once, soon, or later.
    Crash,
    /// Ends by itself with status 0.
    ExitsZero,
    /// Never listens.
    NeverListens,
    /// Binds, listens and lets go before it serves.
    Prober,
    /// Serves a port that is not ours.
    WrongPort,
    /// Ignores the stop signal.
    DeafToTerm,
    /// Needs a while to stop.
    SlowToTerm,
    /// Is stuck in the kernel for a while: not even SIGKILL works.
    Stuck,
    /// `sh -c`: a child in its group serves, it waits, and dies of the stop signal alone.
    Wrapper,
    /// Puts the server into the background and exits 0.
    Daemonizer,
    /// A good server that leaves daemons in sessions of their own, which may have children.
    Daemons,
    /// Accepts on the sockets it was handed (LISTEN_FDS); never binds.
    HandedFds,
    /// Cannot be watched, and sets SO_REUSEPORT on a socket of its own.
    OwnSocket,
    /// Cannot be executed.
    ExecFails,
    /// Cannot be watched, and is helpless then.
    Refused,
    /// Puts its socket into an epoll set before bind(2), or does something else that ties it to it.
    Snagged,
    /// Binds many ports.
    ManyBinds,
    /// A child binds and listens late, perhaps when the leader has gone.
    LateBinder,
    /// Serves, says once that it is ready, and nothing ever after.
    Mute,
    /// Serves, and then does nothing at all for a while.
    Hung,
    /// A client that binds the port it connects from.
    Connector,
}

/// One thing a process does.
#[derive(Clone, Debug)]
pub enum Step {
    /// bind(2), on its next socket.
    Bind(Addr, Option<Snag>),
    /// listen(2) on its n-th socket.
    Listen(usize),
    /// connect(2) from its n-th socket.
    Connect(usize),
    /// close(2) of its n-th socket.
    LetGo(usize),
    /// Binds with SO_REUSEPORT unseen by us, and listens.
    Own(Addr),
    /// Waits for connections on what it was handed.
    Accept,
    /// fork(2); `apart` in a session of its own.
    Fork(Box<Plan>, bool),
    /// Says something of itself.
    Say(Word),
    /// Says that it is well, now and each time after that long.
    Pulse(Duration),
    /// Ends.
    End(Exit),
    /// Cannot be ended for so long.
    Stick(Duration),
    /// Does nothing for so long.
    Hang(Duration),
}

/// What becomes of a fork.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// COMMAND runs.
    Runs,
    /// It does not: step and errno.
    ExecFails(&'static str, i32),
    /// Its bind(2) cannot be watched.
    Refused(i32),
}

/// The whole of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// As drawn.
    pub kind: Kind,
    /// Up to exec.
    pub fate: Fate,
    /// How long that takes.
    pub exec_after: Duration,
    /// And for how long it cannot be ended meanwhile.
    pub held: Option<Duration>,
    /// From then on.
    pub steps: Vec<(Duration, Step)>,
    /// How long it needs to stop when asked; `None` is deaf.
    pub term: Option<Duration>,
    /// Does it end when a child of its does?
    pub waits: bool,
    /// Does it finish what it owes before it stops? Does it shut its lane down?
    pub graceful: bool,
    pub shuts: bool,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A plan for a program of this kind, run under this policy.
pub fn draw(kind: Kind, r: &mut Prng, policy: &Policy) -> Plan {
    let soon = r.ms(0, 200);
    let mut p = Plan {
        kind,
        fate: Fate::Runs,
        exec_after: r.ms(0, 3),
        held: None,
        steps: serve(r, policy, soon),
        term: Some(r.ms(0, 20)),
        waits: false,
        graceful: r.percent(40),
        shuts: r.percent(25),
    };
    match kind {
        Kind::Good | Kind::Mute => {}
        Kind::Slow => {
            let late = r.ms(500, 15_000);
            p.steps = serve(r, policy, late);
        }
        Kind::Crash | Kind::ExitsZero => {
            let (soon, later) = (r.ms(0, 50), r.ms(0, 30_000));
            let after = r.pick(&[ms(0), soon, later]);
            if after.is_zero() {
                p.steps.clear();
            }
            let failure = [Exit::Code(1), Exit::Code(255), Exit::Signal(11)];
            let end = match kind {
                Kind::ExitsZero => Exit::Code(0),
                _ => r.pick(&failure),
            };
            p.steps.push((after, Step::End(end)));
        }
        Kind::NeverListens => p.steps.clear(),
        Kind::Hung => {
            let (at, time) = (r.ms(0, 5000), r.pick(&[ms(900), ms(3000), ms(60_000)]));
            p.steps.push((at, Step::Hang(time)));
        }
        Kind::Prober => probe(&mut p, r, policy),
        Kind::WrongPort => {
            // Or a privileged one, where that is not to be learnt.
            let low = policy.given.is_empty() && policy.learn_from > 80 && r.one_in(2);
            let addr = if low { "0.0.0.0:80" } else { "0.0.0.0:9229" };
            p.steps = bound(r, &[addr.parse().unwrap()], ms(5));
        }
        Kind::DeafToTerm => p.term = None,
        Kind::SlowToTerm => p.term = Some(r.ms(100, 20_000)),
        Kind::Stuck if r.one_in(4) => {
            // Its program lies on a file system that does not answer.
            p.exec_after = r.ms(0, 40_000);
            p.held = Some(p.exec_after);
        }
        Kind::Stuck => {
            let later = r.ms(0, 5000);
            let at = r.pick(&[ms(0), later]);
            let longest = r.pick(&[4000, 40_000, 120_000]);
            p.steps.insert(0, (at, Step::Stick(r.ms(0, longest))));
        }
        Kind::Wrapper | Kind::Daemonizer | Kind::Daemons | Kind::LateBinder => {
            family(&mut p, r, policy)
        }
        Kind::HandedFds => p.steps = vec![(r.ms(0, 3000), Step::Accept)],
        Kind::OwnSocket | Kind::Refused => {
            p.fate = Fate::Refused(r.pick(&[1, 16, 22, 38]));
            if kind == Kind::OwnSocket {
                p.steps = own(r, policy);
            }
        }
        Kind::ExecFails => {
            let exec = [
                ("exec", 2),
                ("exec", 2),
                ("exec", 2),
                ("exec", 13),
                ("exec", 8),
                ("setuid", 1),
                ("setuid", 11),
                ("chdir", 2),
                ("chdir", 13),
                ("setrlimit", 1),
            ];
            let (step, errno) = r.pick(&exec);
            p.fate = Fate::ExecFails(step, errno);
        }
        Kind::Snagged => {
            match r.below(8) {
                0 => probe(&mut p, r, policy),
                1 => connects(&mut p, r, policy, soon),
                2 => p.steps.push((r.ms(0, 3000), Step::End(Exit::Signal(11)))),
                _ => {}
            }
            let snag = r.pick(&[
                Snag::InEpollSet,
                Snag::Duplicated,
                Snag::Shared,
                Snag::Filtered,
            ]);
            for (_, step) in &mut p.steps {
                if let Step::Bind(_, s) = step {
                    *s = Some(snag);
                }
            }
        }
        Kind::ManyBinds => many(&mut p, r, policy),
        Kind::Connector => connects(&mut p, r, policy, soon),
    }
    speak(&mut p, r, policy);
    p
}

/// What it says, once it has done what it does.
fn speak(p: &mut Plan, r: &mut Prng, policy: &Policy) {
    let asked = policy.ready == ReadyRule::Said;
    let end = |(_, s): &(Duration, Step)| matches!(s, Step::End(_));
    let at = p.steps.iter().position(end).unwrap_or(p.steps.len());
    let ends = at < p.steps.len();
    if p.kind != Kind::NeverListens && (asked || r.one_in(10)) {
        p.steps.insert(at, (r.ms(0, 50), Step::Say(Word::Ready)));
    }
    if p.kind == Kind::Crash && r.one_in(3) {
        p.steps
            .insert(at, (r.ms(0, 2000), Step::Say(Word::Trigger)));
    }
    if r.one_in(50) {
        let word = r.pick(&[
            Word::Ready,
            Word::Stopping,
            Word::Retire,
            Word::Ping,
            Word::Unheard,
        ]);
        p.steps.insert(0, (r.ms(0, 5), Step::Say(word)));
    }
    if r.one_in(20) {
        let word = r.pick(&[Word::Retire, Word::Stopping]);
        p.steps.insert(at, (r.ms(0, 6000), Step::Say(word)));
    }
    if let Some(limit) = policy.watchdog
        && !ends
        && p.kind != Kind::Mute
    {
        p.steps.push((ms(1), Step::Pulse(limit / 3)));
    }
}

/// One that never says that it wants to go: those would be replaced for ever.
pub fn content(kind: Kind, r: &mut Prng, policy: &Policy) -> Plan {
    let mut p = draw(kind, r, policy);
    let wishes = |s: &Step| matches!(s, Step::Say(Word::Retire | Word::Stopping));
    p.steps.retain(|(_, s)| !wishes(s));
    p
}

/// One that cannot fail under this policy: what the world is healed with. When no more ports can be
/// learnt, it is content with one that is.
/// Its socket may be its own, where that fits the port.
pub fn healthy(r: &mut Prng, policy: &Policy, only: Option<Addr>, own: bool) -> Plan {
    let mut p = content(Kind::Good, r, policy);
    for (_, step) in &mut p.steps {
        if let (Step::Bind(addr, _), Some(only)) = (step, &only) {
            *addr = only.clone();
        }
    }
    for (_, step) in &mut p.steps {
        if let Step::Bind(addr, snag) = step {
            // (One of an odd number is bound to an interface.)
            let given = policy.given.is_empty() || policy.given.iter().any(|g| g.addr == *addr);
            let plain = addr.port().is_some_and(|p| p % 2 == 0) && !has_map(policy);
            *snag = (own && given && plain).then_some(Snag::InEpollSet);
        }
    }
    p
}

fn has_map(policy: &Policy) -> bool {
    matches!(policy.takeover, Takeover::Ports(_))
}

/// Addresses that a server made for this policy binds.
fn service(r: &mut Prng, policy: &Policy) -> Vec<Addr> {
    let any = |r: &mut Prng, port: u16| -> Addr {
        let ip = r.pick(&["0.0.0.0", "127.0.0.1", "[::]", "[::1]"]);
        format!("{ip}:{port}").parse().unwrap()
    };
    match &policy.takeover {
        Takeover::Ports(map) => map.iter().map(|(theirs, _)| any(r, *theirs)).collect(),
        Takeover::Auto | Takeover::Require | Takeover::Off if policy.given.is_empty() => {
            vec![
                r.pick(&[
                    "0.0.0.0:3000",
                    "0.0.0.0:3000",
                    "[::]:3000",
                    "127.0.0.1:3001",
                ])
                .parse()
                .unwrap(),
            ]
        }
        Takeover::Auto | Takeover::Require | Takeover::Off => {
            let same = r.one_in(2);
            let one = |g: &Given| match g.addr.port() {
                Some(port) if !same => any(r, port),
                Some(_) | None => g.addr.clone(),
            };
            policy.given.iter().map(one).collect()
        }
    }
}

fn bound(r: &mut Prng, addrs: &[Addr], after: Duration) -> Vec<(Duration, Step)> {
    let mut steps = Vec::new();
    for (n, addr) in addrs.iter().enumerate() {
        let first = if n == 0 { after } else { r.ms(0, 2) };
        steps.push((first, Step::Bind(addr.clone(), None)));
        steps.push((r.ms(0, 2), Step::Listen(n)));
    }
    steps
}

fn own(r: &mut Prng, policy: &Policy) -> Vec<(Duration, Step)> {
    let addrs = match policy.given.as_slice() {
        [] => service(r, policy),
        given => given.iter().map(|g| g.addr.clone()).collect(),
    };
    let own = addrs.into_iter().filter(|a| a.tcp().is_some());
    let steps: Vec<_> = own.map(|a| (r.ms(0, 100), Step::Own(a))).collect();
    match steps.is_empty() {
        // A unix socket can be had by one alone: they take the one they were handed.
        true => vec![(r.ms(0, 100), Step::Accept)],
        false => steps,
    }
}

/// What a server that fits this policy does.
fn serve(r: &mut Prng, policy: &Policy, after: Duration) -> Vec<(Duration, Step)> {
    if policy.takeover == Takeover::Off {
        // All of one kind: what listens by itself closes the lane that others wait for.
        return match policy.seed % 2 == 0 {
            true => own(r, policy),
            false => vec![(after, Step::Accept)],
        };
    }
    let addrs = service(r, policy);
    bound(r, &addrs, after)
}

fn connects(p: &mut Plan, r: &mut Prng, policy: &Policy, after: Duration) {
    let addr = service(r, policy)[0].clone();
    p.steps = vec![(after, Step::Bind(addr, None)), (ms(1), Step::Connect(0))];
}

fn probe(p: &mut Plan, r: &mut Prng, policy: &Policy) {
    let addr = service(r, policy)[0].clone();
    let mut steps = Vec::new();
    let probes = r.range(1, 3) as usize;
    for n in 0..probes {
        steps.push((r.ms(0, 30), Step::Bind(addr.clone(), None)));
        steps.push((r.ms(0, 2), Step::Listen(n)));
        steps.push((r.ms(0, 45), Step::LetGo(n)));
    }
    steps.push((r.ms(0, 100), Step::Bind(addr.clone(), None)));
    steps.push((r.ms(0, 5), Step::Listen(probes)));
    p.steps = steps;
}

/// Programs that are more than one process.
fn family(p: &mut Plan, r: &mut Prng, policy: &Policy) {
    let mut child = Plan {
        fate: Fate::Runs,
        ..p.clone()
    };
    let deaf = |r: &mut Prng| r.weighted(&[(1, None), (1, Some(ms(1))), (1, Some(ms(3000)))]);
    match p.kind {
        Kind::Wrapper => {
            child.term = r.weighted(&[(3, Some(ms(10))), (1, None)]);
            p.steps = vec![(r.ms(0, 5), Step::Fork(Box::new(child), false))];
            p.term = Some(Duration::ZERO);
            p.waits = true;
        }
        Kind::Daemonizer => {
            child.term = deaf(r);
            p.steps = vec![
                (r.ms(0, 5), Step::Fork(Box::new(child), true)),
                (r.ms(0, 5), Step::End(Exit::Code(0))),
            ];
        }
        Kind::LateBinder => {
            let late = r.ms(0, 5000);
            child.steps = serve(r, policy, late);
            child.term = deaf(r);
            p.steps
                .push((ms(1), Step::Fork(Box::new(child), r.one_in(2))));
            if r.one_in(2) {
                p.steps.push((r.ms(0, 500), Step::End(Exit::Code(0))));
            }
        }
        _ => {
            child.steps.clear();
            child.term = deaf(r);
            for _ in 0..r.below(3) {
                // A nest: when the outer one ends, its child becomes ours.
                let inner = child.clone();
                child.term = deaf(r);
                child.steps = vec![(r.ms(0, 50), Step::Fork(Box::new(inner), true))];
                if r.one_in(4) {
                    child.steps.push((ms(1), Step::Stick(r.ms(0, 40_000))));
                }
            }
            let at = r.below(p.steps.len() as u64 + 1) as usize;
            p.steps
                .insert(at, (r.ms(0, 50), Step::Fork(Box::new(child), true)));
            if r.one_in(3) {
                p.steps.push((r.ms(0, 2000), Step::End(Exit::Code(1))));
            }
        }
    }
}

/// Few ports or more than may be learnt.
fn many(p: &mut Plan, r: &mut Prng, policy: &Policy) {
    let mut addrs = service(r, policy);
    let extra = r.pick(&[2, 5, 90]);
    let port = |n: u16| format!("127.0.0.1:{}", 5000 + n).parse::<Addr>().unwrap();
    addrs.extend((0..extra).map(port));
    let shortly = ms(r.below(3));
    p.steps = bound(r, &addrs, shortly);
}
