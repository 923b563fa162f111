//! What is drawn to go wrong, and when: the operators' wishes among it, and the end.

use crate::draw::{INT, Mischief, QUIT, Reload, TERM, TTIN, TTOU, millis, secs};
use crate::prng::Prng;
use minicluster::core::{MasterSignal, Policy, Size, Target};
use std::time::Duration;

/// As --on-signal maps them, for one.
const PWR: MasterSignal = MasterSignal::Resize(Size::To(2), "SIGPWR received");
const OUT: MasterSignal = MasterSignal::Rotate {
    enable: false,
    why: "SIGUSR1 received",
};
const WINCH: MasterSignal = MasterSignal::Relay {
    signal: 10,
    target: Target::Number(1),
    why: "SIGWINCH received",
};

/// All that happens beside what the processes do by themselves.
pub fn nuisances(r: &mut Prng, chaos: Duration) -> Vec<(Duration, Mischief)> {
    let mut list = Vec::new();
    let mut some = |r: &mut Prng, most: u64, what: fn(&mut Prng) -> Mischief| {
        for _ in 0..r.below(most + 1) {
            list.push((r.upto(chaos), what(r)));
        }
    };
    if r.percent(40) {
        some(r, 4, |r| Mischief::Storm(r.pick(&[10, 50, 100])));
    }
    if r.percent(25) {
        some(r, 3, |r| {
            Mischief::Stall(r.pick(&[millis(100), secs(2), secs(6), secs(40), secs(3600)]))
        });
    }
    if r.percent(10) {
        some(r, 1, |_| Mischief::Jump(secs(3600)));
    }
    some(r, 4, |_| Mischief::Tick);
    some(r, 8, |_| Mischief::Stale);
    if r.percent(50) {
        some(r, 6, resize);
    }
    if r.percent(20) {
        some(r, 3, |r| {
            let signal = [TTIN, TTOU, PWR, WINCH];
            Mischief::Signal(r.pick(&signal))
        });
    }
    if r.percent(20) {
        some(r, 3, |r| {
            let n = r.range(0, 10) as u32;
            let target = [
                Target::All,
                Target::Slot(n),
                Target::Number(n),
                Target::Pid(n + 100),
            ];
            Mischief::Relay(r.pick(&[15, 10, 9]), r.pick(&target))
        });
    }
    if r.percent(30) {
        some(r, 6, |r| {
            let n = r.range(0, 10) as u32;
            Mischief::Restart {
                target: r.pick(&[Target::Slot(n), Target::Number(n), Target::Pid(n + 100)]),
                wait: r.percent(80),
            }
        });
    }
    if r.percent(20) {
        some(r, 8, |_| Mischief::Counted);
    }
    if r.percent(2) {
        some(r, 1, |_| Mischief::CrowdOfSizes);
    }
    if r.percent(2) {
        some(r, 1, |_| Mischief::CrowdOfReloads);
    }
    if r.percent(60) {
        some(r, 4, |r| Mischief::Reload(Reload::draw(r)));
    }
    if r.percent(15) {
        some(r, 2, |_| Mischief::BackOut);
    }
    if r.percent(15) {
        some(r, 2, |r| Mischief::Start {
            count: r.range(1, 4) as u16,
            ready: r.percent(30).then(|| r.pick(&[millis(100), secs(2)])),
            wait: r.percent(80),
        });
    }
    if r.percent(3) {
        // In quick succession: more generations than may be drained.
        let at = r.upto(chaos);
        for n in 0..r.range(2, 14) {
            let soon = at + millis(r.range(100, 1500) * n);
            list.push((soon, Mischief::Reload(Reload::same())));
        }
    }
    list
}

/// The cluster is taken out of rotation, and put back. (By dice of their own: what a seed draws else stays
/// what it was.)
pub fn rotations(seed: u64, chaos: Duration) -> Vec<(Duration, Mischief)> {
    let mut r = Prng::new(seed);
    if !r.percent(20) {
        return Vec::new();
    }
    let one = |r: &mut Prng| match r.below(4) {
        0 => Mischief::Signal(OUT),
        1 => Mischief::Rotate(false),
        _ => Mischief::Rotate(true),
    };
    let n = r.range(1, 5);
    (0..n).map(|_| (r.upto(chaos), one(&mut r))).collect()
}

/// Slots are shut down. (By dice of their own, too.)
pub fn closings(seed: u64, chaos: Duration) -> Vec<(Duration, Mischief)> {
    let mut r = Prng::new(seed.wrapping_add(1));
    if !r.percent(25) {
        return Vec::new();
    }
    let one = |r: &mut Prng| {
        let n = r.range(0, 10) as u32;
        Mischief::Shutdown {
            target: r.pick(&[Target::Slot(n), Target::Number(n), Target::Pid(n + 100)]),
            within: r
                .percent(30)
                .then(|| r.pick(&[millis(1), millis(300), secs(5)])),
            wait: r.percent(80),
        }
    };
    let n = r.range(1, 6);
    (0..n).map(|_| (r.upto(chaos), one(&mut r))).collect()
}

/// The end that is asked for is sometimes another one.
pub fn other_end(seed: u64, end: Mischief) -> Mischief {
    let mut r = Prng::new(seed.wrapping_add(2));
    match (end, r.below(10)) {
        (Mischief::Stop { hard: true }, 0..=4) => Mischief::Exit,
        (Mischief::Stop { hard: false }, 0..=2) => {
            Mischief::StopWithin(r.pick(&[secs(9), secs(1), secs(20)]))
        }
        (end, _) => end,
    }
}

/// Another number of workers, which there can mostly be.
fn resize(r: &mut Prng) -> Mischief {
    let n = r.range(1, 10) as u16;
    let step = r.range(1, 3) as u16;
    let to = r.weighted(&[
        (6, Size::To(n)),
        (3, Size::More(step)),
        (3, Size::Fewer(step)),
        (1, Size::Fewer(1024)),
    ]);
    Mischief::Resize {
        to,
        wait: !r.one_in(8),
    }
}

/// One way to ask for the end, and what may follow.
pub fn stops(r: &mut Prng, at: Duration, policy: &Policy) -> Vec<(Duration, Mischief)> {
    let soon = policy.stop_timeout + secs(2);
    let first = r.weighted(&[
        (6, Mischief::Signal(TERM)),
        (1, Mischief::Signal(INT)),
        (1, Mischief::Signal(MasterSignal::HangUp)),
        (1, Mischief::Signal(MasterSignal::CallerGone)),
        (1, Mischief::Signal(QUIT)),
        (4, Mischief::Stop { hard: false }),
        (1, Mischief::Stop { hard: true }),
    ]);
    let mut list = vec![(at, other_end(policy.seed, first))];
    if r.percent(2) {
        list.push((at, Mischief::Crowd));
    }
    for _ in 0..r.below(3) {
        let size = resize(r);
        let reload = Reload::draw(r);
        let next = r.weighted(&[
            (2, Mischief::Signal(INT)),
            (2, Mischief::Signal(TERM)),
            (1, Mischief::Signal(QUIT)),
            (3, Mischief::Signal(MasterSignal::HangUp)),
            (6, Mischief::Stop { hard: false }),
            (1, Mischief::Stop { hard: true }),
            (6, Mischief::HangUp),
            (2, size),
            (2, Mischief::Reload(reload)),
            (1, Mischief::Signal(TTIN)),
            (1, Mischief::Relay(10, Target::All)),
        ]);
        list.push((at + r.upto(soon), next));
    }
    if r.percent(15) {
        let pause = r.pick(&[millis(100), secs(2), secs(6), secs(40)]);
        list.push((at + r.upto(soon), Mischief::Stall(pause)));
    }
    if r.percent(10) {
        list.push((at + r.upto(soon), Mischief::Jump(secs(3600))));
    }
    list
}
