//! The monitor page in a real browser: what somebody sees who looks at it, and does there. With E2E_SHOTS=DIR
//! pictures are left behind (`make screenshots`).

use crate::browser::Browser;
use crate::client::v4;
use crate::harness::Rig;
use crate::house::{House, KEY, house, house_of, key_file};
use crate::load::Load;
use crate::place::free_port;
use nix::sys::signal::Signal;
use std::net::SocketAddr;

const AXE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/page/node_modules/axe-core/axe.min.js"
);

/// Is live, and may all.
const LIVE: &str = "document.querySelector('#link').textContent === 'Live' && state.status";
const GENERATION: &str = "document.querySelector('[data-tile=generation] .value').textContent";

fn ready(n: usize) -> String {
    format!("document.querySelectorAll('#rows tr[data-state=ready]:not(.beside)').length === {n}")
}

fn browser(rig: &Rig) -> Browser {
    Browser::start(rig.dir(), rig.deadline())
}

fn at(monitor: SocketAddr) -> String {
    format!("http://localhost:{}/", monitor.port())
}

fn with_key(monitor: SocketAddr) -> String {
    format!("{}#key={KEY}", at(monitor))
}

/// Its page, opened with the key.
fn opened(h: &House) -> Browser {
    let mut b = browser(&h.rig);
    b.open(&with_key(h.monitor));
    b.until(LIVE);
    b
}

#[test]
#[ignore = "needs Chromium: make test-servers"]
fn heavy_page_shows_the_cluster_and_is_told_at_once_when_a_worker_dies() {
    let mut h = house(4, "");
    let mut b = opened(&h);
    b.until(&ready(4));
    assert_eq!(
        b.says("document.querySelector('#state').textContent"),
        "serving"
    );
    assert_eq!(b.says("document.title.split(' ')[0]"), "4/4");
    // The key is not left where somebody looks over a shoulder.
    assert_eq!(b.says("location.href"), at(h.monitor));
    let victim = h.rig.status().pids()[2];
    // By the stream alone: nothing is looked at by the clock.
    let only = "{ const soon = schedule; clearTimeout(state.timer); state.timer = null; \
                schedule = after => after < EVERY && soon(after); 0 }";
    b.value(only);
    let next = h.rig.replace(victim);
    b.until(&format!(
        "[...document.querySelectorAll('#rows td')].some(e => e.textContent === '{next}')"
    ));
    b.until("document.querySelector('#events [data-event=died]')");
    b.until(
        "document.querySelector('tr[data-slot=\"2\"] .last').textContent === 'failure (SIGKILL)'",
    );
    b.ends_content(false);
    h.rig.end(&["died"]);
}

#[test]
#[ignore = "needs Chromium: make test-servers"]
fn heavy_page_reloads_and_takes_out_of_rotation_with_the_key_and_the_keyboard_alone() {
    let h = house(3, "");
    let load = Load::going(&format!("{} clients=4", h.port));
    let mut b = opened(&h);
    b.tab_to("[data-do=reload]");
    b.press("Enter");
    b.until("document.querySelector('#dialog').open");
    b.tab_to("#dialog-yes");
    b.press("Enter");
    b.until(&format!("{GENERATION} === '2'"));
    b.until("document.querySelector('#toasts').innerText.includes('generation 2 serves')");
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    // The focus is where it was.
    b.until("document.activeElement.matches('[data-do=reload]')");
    b.tab_to("#rotation");
    b.press(" ");
    b.until("document.activeElement.matches('#dialog input')");
    b.types("it's \"my\" turn");
    b.press("Enter");
    b.until("document.querySelector('#rotation').getAttribute('aria-checked') === 'false'");
    b.until("document.querySelector('#rotation-text').textContent.includes(`it's \"my\" turn`)");
    assert_eq!(h.asks("GET /ecv").status, 400);
    b.until("document.activeElement.matches('#rotation')");
    b.press("Enter");
    b.until("document.querySelector('#rotation').getAttribute('aria-checked') === 'true'");
    assert_eq!(h.asks("GET /ecv").status, 200);
    // What is refused at once is told where it was typed; and away with Escape nothing has happened.
    b.tab_to("[data-do=resize]");
    b.press("Enter");
    b.until("document.activeElement.matches('#dialog input')");
    b.types("2000");
    b.press("Enter");
    b.until("document.querySelector('#dialog-error').textContent.includes('1024')");
    assert_eq!(b.says("document.querySelector('#dialog').open"), "true");
    b.press("Escape");
    b.until("!document.querySelector('#dialog').open");
    b.tab_to("[data-do=more]");
    b.press("Enter");
    b.until(&ready(4));
    b.tab_to("[data-do=less]");
    b.press("Enter");
    b.until(&ready(3));
    b.tab_to("#tab-events");
    b.press("ArrowRight");
    b.until("document.activeElement.matches('#tab-why') && !document.querySelector('#panel-why').hidden");
    b.press("End");
    b.until("document.querySelector('#panel-options').innerText.includes('--monitor')");
    // (What is refused a browser tells as an error of the page.)
    b.ends_content(true);
    h.rig.end(&[]);
}

#[test]
#[ignore = "needs Chromium: make test-servers"]
fn heavy_page_without_the_key_shows_what_anybody_may_see_and_changes_nothing() {
    let h = house(2, "");
    let mut b = browser(&h.rig);
    b.open(&at(h.monitor));
    b.until(&ready(2));
    assert_eq!(
        b.says("[...document.querySelectorAll('[data-do]')].every(e => e.disabled)"),
        "true"
    );
    b.until("document.querySelector('#events-empty').innerText.includes('key')");
    // Nothing was tried that the log would have to warn of.
    assert!(b.refusals.is_empty(), "{:?}", b.refusals);
    assert!(h.rig.events("request-refused").is_empty());
    // Whoever takes the buttons for all there is to it, is refused.
    for (path, method) in [
        ("restart", "POST"),
        ("cli?cmd=reload", "POST"),
        ("disable", "POST"),
        ("status", "GET"),
    ] {
        let js = format!("fetch('{path}', {{ method: '{method}' }}).then(r => r.status)");
        assert_eq!(b.says(&js), "401", "{path}");
    }
    b.click("#tab-options");
    b.until("document.querySelector('#panel-options').innerText.includes('key')");
    b.click("#note button");
    b.until("document.querySelector('#dialog').open");
    b.types("0123456789abcdef");
    b.press("Enter");
    b.until("document.querySelector('#dialog-error').textContent === 'That is not the key.'");
    b.value("document.querySelector('#dialog input').select()");
    b.types(KEY);
    b.press("Enter");
    b.until(LIVE);
    b.until("!document.querySelector('[data-do=reload]').disabled");
    b.until("document.querySelector('#panel-options').innerText.includes('--monitor')");
    b.until("document.querySelector('#events [data-event=all-ready]')");
    b.click("#sign");
    b.until("document.querySelector('[data-do=reload]').disabled");
    b.until("!document.querySelector('#events [data-event]')");
    assert!(h.rig.events("reload-started").is_empty());
    b.ends_content(true);
    h.rig.end(&["request-refused"]);
}

#[test]
#[ignore = "needs Chromium: make test-servers"]
fn heavy_page_without_a_key_file_says_why_nothing_can_be_changed() {
    let (port, monitor) = (free_port(), free_port());
    let mut rig = Rig::start(format!("-n 2 -p {port} --monitor {monitor} -- ./threaded"));
    rig.up();
    let mut b = browser(&rig);
    b.open(&at(v4(monitor)));
    b.until(&ready(2));
    b.until("document.querySelector('#note').innerText.includes('without --key-file')");
    assert_eq!(b.says("document.querySelector('#sign').hidden"), "true");
    b.ends_content(false);
    rig.end(&[]);
}

#[test]
#[ignore = "needs Chromium: make test-servers"]
fn heavy_page_survives_the_handover_of_the_master_and_says_when_there_is_none() {
    let mut h = house(2, "");
    let mut b = opened(&h);
    b.value("window.mark = 'the same page', 0");
    assert_eq!(h.rig.verb("handover").code, 0);
    b.until("document.querySelector('#events [data-event=handover]')");
    b.until(LIVE);
    let victim = h.rig.status().pids()[0];
    let next = h.rig.replace(victim);
    b.until(&format!(
        "[...document.querySelectorAll('#rows td')].some(e => e.textContent === '{next}')"
    ));
    assert_eq!(b.says("window.mark"), "the same page");
    // One that hangs looks no better than one that has gone.
    h.rig.signal(Signal::SIGSTOP);
    b.until("document.querySelector('#link').textContent.startsWith('No answer for')");
    b.until("document.querySelector('[data-do=reload]').disabled");
    h.rig.signal(Signal::SIGCONT);
    b.until(LIVE);
    assert!(b.refusals.is_empty(), "{:?}", b.refusals);
    h.rig.signal(Signal::SIGTERM);
    b.until("document.querySelector('#link').textContent.startsWith('No answer for')");
    b.until("document.querySelector('#state').textContent === 'no answer'");
    h.rig.finish(0, &["died"]);
}

#[test]
#[ignore = "needs Chromium: make test-servers"]
fn heavy_page_upgrades_watches_the_rollout_and_rolls_back() {
    let h = house_of(3, "--canary 1:3s --balance hash", "./threaded");
    let mut b = opened(&h);
    b.click("[data-do=upgrade]");
    b.until("document.querySelector('#dialog textarea').value === './threaded'");
    b.value("document.querySelector('#dialog textarea').value = \"env 'A=b c' ./threaded\", 0");
    b.click("#dialog-yes");
    b.until("!document.querySelector('#rollout').hidden");
    b.until("document.querySelector('#rollout-stages [data-is=now]').textContent === 'canary'");
    b.until("document.querySelector('#rollout-bar').getAttribute('aria-valuenow') === '1'");
    b.until("document.querySelectorAll('#rows tr.beside').length === 1");
    b.until("!document.querySelector('#dialog').open");
    b.picture("rollout-light");
    b.prefers("dark");
    b.picture("rollout-dark");
    b.until(&format!("{GENERATION} === '2'"));
    b.until(&ready(3));
    b.click("tr[data-slot='0'] .more button");
    b.until(
        "document.querySelector('#rows .details code').textContent === \"env 'A=b c' ./threaded\"",
    );
    b.click("[data-do=rollback]");
    b.until("document.querySelector('#dialog-text').textContent.endsWith(': ./threaded')");
    b.click("#dialog-yes");
    b.until(&format!("{GENERATION} === '3'"));
    b.until("document.querySelector('#rows .details code').textContent === './threaded'");
    // One of them alone.
    let before = h.rig.status().pids();
    b.click("#rows .details [data-needs=key]");
    b.until("document.querySelector('#toasts').innerText.includes('worker 0')");
    h.rig.until("it is another one", || {
        let now = h.rig.status().pids();
        now.len() == 3 && now[0] != before[0] && now[1..] == before[1..]
    });
    b.ends_content(false);
    h.rig.end(&[]);
}

#[test]
#[ignore = "needs Chromium: make test-servers"]
fn heavy_page_looks_while_events_come_without_a_pause_and_shows_whatever_is_in_them() {
    let mut h = house(2, "");
    let mut b = opened(&h);
    b.value("setInterval(() => heard({ ts: new Date().toISOString(), level: 'info', event: 'noise', msg: 'x' }), 30), 0");
    assert_eq!(h.rig.verb(["debug", "before \u{2028} behind"]).code, 0);
    b.until(
        "[...document.querySelectorAll('#events li')].some(e => e.innerText.includes('behind'))",
    );
    let victim = h.rig.status().pids()[0];
    let next = h.rig.replace(victim);
    b.until(&format!(
        "[...document.querySelectorAll('#rows td')].some(e => e.textContent === '{next}')"
    ));
    b.ends_content(false);
    h.rig.end(&["died"]);
}

#[test]
#[ignore = "needs Chromium: make test-servers"]
fn heavy_page_tells_the_story_of_a_crash_loop_once() {
    let monitor = free_port();
    let script = "echo 'KeyError: DATABASE_URL' >&2; exit 1";
    let port = free_port().to_string();
    let words = [
        "-n",
        "2",
        "-p",
        &port,
        "--monitor",
        &monitor.to_string(),
        "--key-file",
        "key",
        "--start-timeout",
        "0",
        "--restarts-per-minute",
        "6",
        "--",
        "sh",
        "-c",
        script,
    ];
    let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
    let mut rig = Rig::dressed(words, |_, dir| {
        key_file(dir, 0o600, KEY);
    });
    rig.wait("crash-loop", |_| true);
    let mut b = browser(&rig);
    b.open(&with_key(v4(monitor)));
    b.until("document.querySelector('#state').textContent === 'no worker is ready'");
    b.until("document.querySelector('#events [data-event=crash-loop]')");
    b.picture("crash-loop-light");
    b.click("#tab-why");
    b.until("document.querySelector('#panel-why').innerText.includes('KeyError: DATABASE_URL')");
    assert_eq!(
        b.says("document.querySelectorAll('#panel-why pre').length"),
        "1"
    );
    b.size(390, 844, 2.0);
    b.prefers("dark");
    b.picture("crash-loop-phone-dark");
    b.ends_content(false);
    rig.end(&["died", "crash-loop", "not-ready"]);
}

#[test]
#[ignore = "needs Chromium: make test-servers"]
fn heavy_page_takes_nothing_that_a_worker_says_for_markup() {
    let evil = "<img src=x onerror=window.taken=1><script>window.taken=1</script>";
    let h = house_of(1, "--log-dir logs", "./threaded");
    std::fs::write(
        h.rig.dir().join("logs/web.evil.log"),
        format!("{evil}\u{1b}[31mred\n"),
    )
    .unwrap();
    let mut b = opened(&h);
    let json = format!(
        "{{\"x\":{}}}",
        tinyjson::JsonValue::String(evil.into())
            .stringify()
            .unwrap()
    );
    assert_eq!(h.rig.verb(["emit", "evil", &json]).code, 0);
    assert_eq!(h.rig.verb(["debug", evil]).code, 0);
    b.until("document.querySelector('#events').innerText.includes('<img src=x')");
    h.rig.verb(["disable", evil]);
    b.until("document.querySelector('#rotation-text').textContent.includes('<img src=x')");
    h.rig.verb("enable");
    b.click("#tab-logs");
    b.until(
        "[...document.querySelector('#log-file').options].some(o => o.value === 'web.evil.log')",
    );
    b.value("document.querySelector('#log-file').value = 'web.evil.log', document.querySelector('#log-file').dispatchEvent(new Event('change')), 0");
    b.until("document.querySelector('#log').textContent.includes('</script>red')");
    assert_eq!(b.says("String(window.taken)"), "undefined");
    assert_eq!(
        b.says("document.querySelectorAll('img, #events script').length"),
        "0"
    );
    // Should it ever be, the browser refuses it.
    let refused = b.says(
        "(() => { try { document.body.insertAdjacentHTML('beforeend', '<p>'); return 'taken'; } catch { return 'refused'; } })()",
    );
    assert_eq!(refused, "refused");
    b.complaints.retain(|c| !c.contains("TrustedHTML"));
    b.ends_content(false);
    h.rig.end(&[]);
}

#[test]
#[ignore = "needs Chromium: make test-servers"]
fn heavy_page_follows_what_workers_write_and_goes_with_the_file_when_it_is_another_one() {
    let h = house_of(1, "--log-dir logs", "./threaded");
    let log = h.rig.dir().join("logs").join("story.log");
    std::fs::write(&log, "first\n").unwrap();
    let mut b = opened(&h);
    b.click("#tab-logs");
    b.until("[...document.querySelector('#log-file').options].some(o => o.value === 'story.log')");
    b.value("document.querySelector('#log-file').value = 'story.log', document.querySelector('#log-file').dispatchEvent(new Event('change')), 0");
    b.until("document.querySelector('#log').textContent === 'first\\n'");
    std::fs::write(&log, "first\nsecond\n").unwrap();
    b.until("document.querySelector('#log').textContent === 'first\\nsecond\\n'");
    std::fs::write(&log, "anew\n").unwrap();
    b.until("document.querySelector('#log').textContent === 'anew\\n'");
    // Half of a character, and then the rest of it.
    std::fs::write(&log, b"anew\nna\xc3").unwrap();
    b.until("document.querySelector('#log').textContent === 'anew\\nna'");
    std::fs::write(&log, "anew\nnaïve\n").unwrap();
    b.until("document.querySelector('#log').textContent === 'anew\\nnaïve\\n'");
    b.ends_content(true);
    h.rig.end(&[]);
}

/// What a well-known checker of accessibility finds wrong with what is seen now.
fn faults(b: &mut Browser) -> String {
    let axe =
        std::fs::read_to_string(AXE).unwrap_or_else(|e| panic!("{AXE}: {e}: make test-servers"));
    b.value(&format!("{axe}; 0"));
    b.says(
        "axe.run().then(r => r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html + ' ' + \
         n.failureSummary).join(' | ')).join('\\n'))",
    )
}

#[test]
#[ignore = "needs Chromium: make test-servers"]
fn heavy_page_can_be_used_by_who_does_not_see_it_and_on_a_phone_in_the_dark() {
    let mut h = house_of(4, "--balance hash --log-dir logs", "./threaded");
    let load = Load::going(&format!("{} clients=6", h.port));
    let mut b = opened(&h);
    b.until(&ready(4));
    b.until("figures.cpu.points.length > 5");
    b.picture("desktop-light");
    let victim = h.rig.status().pids()[1];
    h.rig.replace(victim);
    b.click("tr[data-slot='1'] .more button");
    b.until("document.querySelector('#rows .details code')");
    for (scheme, width, name) in [
        ("light", 1280, "desktop-light-details"),
        ("dark", 1280, "desktop-dark"),
        ("light", 390, "phone-light"),
        ("dark", 390, "phone-dark"),
    ] {
        b.prefers(scheme);
        b.size(width, 844, if width < 500 { 2.0 } else { 1.0 });
        for tab in ["why", "deps", "options", "logs", "events"] {
            b.click(&format!("#tab-{tab}"));
            b.until(&format!(
                "document.querySelector('#panel-{tab}').children.length > 0"
            ));
            assert_eq!(faults(&mut b), "", "{scheme}, {width} wide, {tab}");
            // Nothing is beside what can be seen.
            assert_eq!(
                b.says("document.documentElement.scrollWidth <= innerWidth"),
                "true"
            );
        }
        b.picture(name);
    }
    b.click("[data-do=upgrade]");
    b.until("document.querySelector('#dialog').open");
    assert_eq!(faults(&mut b), "");
    b.picture("dialog-phone-dark");
    b.press("Escape");
    // What is announced is announced.
    b.until("document.querySelector('#said').textContent.includes('failure (SIGKILL)')");
    let (_, tally) = load.finish();
    assert!(tally.of("fresh_ok") > 0, "{tally:?}");
    b.ends_content(false);
    h.rig.end(&["died"]);
}
