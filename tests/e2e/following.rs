//! Those who follow what happens and say that they have no more to say: they listen on, until they have gone.

use crate::console::Typist;
use crate::harness::Rig;
use crate::place::free_port;
use crate::proc;

#[test]
fn who_follows_and_says_no_more_is_told_on_until_it_goes() {
    let mut rig = Rig::start(format!("-n 1 -p {} -- ./threaded", free_port()));
    rig.up();
    let mut lines = Typist::on(&rig.socket());
    lines.types("events follow");
    let mut stream = Typist::on(&rig.socket());
    stream.types("GET /events HTTP/1.1\r\nHost: x\r\n\r");
    for one in [&mut lines, &mut stream] {
        one.says_no_more();
        one.reads_of("is ready on");
    }
    let mut looks = 0;
    rig.until("the master sleeps all the same", || {
        looks = (looks + 1) * usize::from(proc::sleeps(rig.pid()));
        looks > 3
    });
    for n in 0..3 {
        rig.verb(format!("debug hello-{n}"));
        for one in [&mut lines, &mut stream] {
            one.reads_of(&format!("hello-{n}"));
        }
    }
    // Who only looks at what has happened has seen it.
    let mut look = Typist::on(&rig.socket());
    look.types("events");
    assert!(look.rest().contains("hello-2"));
    // That they have gone is noticed, though nothing happens: see the descriptors.
    drop((lines, stream));
    rig.end(&[]);
}
