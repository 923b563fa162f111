//! A real browser, spoken to over a pipe in the protocol of its developer tools: a page is opened, keys are
//! pressed, what is there then is asked. Nothing is clicked that could not be, and nothing is waited for by
//! the clock: what has to become so is looked for until the story's deadline.

use crate::birth;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tinyjson::JsonValue;

/// Where pictures go, if they are wanted.
const SHOTS: &str = "E2E_SHOTS";

/// It, with one page.
pub struct Browser {
    child: Child,
    rest: Vec<u8>,
    calls: u64,
    session: String,
    deadline: Instant,
    /// Is the page there that was opened last?
    loaded: bool,
    /// What the page has complained of: exceptions, and what its policy has refused.
    pub complaints: Vec<String>,
    /// Answers that were no successes, which a browser tells as errors of the page.
    pub refusals: Vec<String>,
}

fn quoted(text: &str) -> String {
    JsonValue::String(text.into()).stringify().unwrap()
}

fn text(v: &JsonValue) -> String {
    match v {
        JsonValue::String(s) => s.clone(),
        other => other.stringify().unwrap(),
    }
}

/// A member that may not be there.
fn member<'a>(v: &'a JsonValue, name: &str) -> Option<&'a JsonValue> {
    v.get::<std::collections::HashMap<String, JsonValue>>()?
        .get(name)
}

impl Browser {
    /// Starts it; what it keeps is in that directory.
    pub fn start(dir: &Path, deadline: Instant) -> Browser {
        // It speaks on 3 and 4. Root cannot have its sandbox, and what it is shown is ours.
        let script = "exec 3<&0 4>&1 0</dev/null 1>&0 2>&0; exec chromium-headless-shell \"$@\"";
        let profile = format!("--user-data-dir={}", dir.join("browser").display());
        let mut cmd = Command::new("sh");
        cmd.args([
            "-c",
            script,
            "sh",
            "--remote-debugging-pipe",
            "--no-sandbox",
        ])
        .args([
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-dev-shm-usage",
            "--disable-breakpad",
            &profile,
        ])
        .env("HOME", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0);
        birth::with_default_signals(&mut cmd);
        let mut browser = Browser {
            child: cmd.spawn().unwrap(),
            rest: Vec::new(),
            calls: 0,
            session: String::new(),
            deadline,
            loaded: false,
            complaints: Vec::new(),
            refusals: Vec::new(),
        };
        let page = browser.call("Target.createTarget", "{\"url\":\"about:blank\"}");
        let attach = format!(
            "{{\"targetId\":{},\"flatten\":true}}",
            quoted(&text(&page["targetId"]))
        );
        let session = browser.call("Target.attachToTarget", &attach);
        browser.session = text(&session["sessionId"]);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), "{}");
        }
        browser.size(1280, 900, 1.0);
        browser
    }

    /// The answer to that.
    fn call(&mut self, method: &str, params: &str) -> JsonValue {
        self.calls += 1;
        let (id, session) = (self.calls, &self.session);
        let session = match session.as_str() {
            "" => String::new(),
            id => format!(",\"sessionId\":{}", quoted(id)),
        };
        let message =
            format!("{{\"id\":{id},\"method\":\"{method}\",\"params\":{params}{session}}}\0");
        let to = self.child.stdin.as_mut().unwrap();
        to.write_all(message.as_bytes()).unwrap();
        loop {
            let heard = self.hear();
            if member(&heard, "id").and_then(|n| n.get::<f64>()) == Some(&(id as f64)) {
                let failed = member(&heard, "error").map(text);
                assert_eq!(failed, None, "{method} {params}");
                return heard["result"].clone();
            }
            self.note(&heard);
        }
    }

    /// What it says next.
    fn hear(&mut self) -> JsonValue {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == 0) {
                let message: Vec<u8> = self.rest.drain(..=end).collect();
                let message = String::from_utf8_lossy(&message[..end]).into_owned();
                return message.parse().unwrap();
            }
            let from = self.child.stdout.as_mut().unwrap();
            // (Who has waited in vain until then asks what is there instead.)
            let left = self.deadline.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_secs(5));
            let left = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            let mut fds = [nix::poll::PollFd::new(
                from.as_fd(),
                nix::poll::PollFlags::POLLIN,
            )];
            let n = nix::poll::poll(&mut fds, left).unwrap();
            assert!(n > 0, "the browser says nothing");
            let mut bytes = [0; 65536];
            let n = from.read(&mut bytes).unwrap();
            assert!(n > 0, "the browser has ended");
            self.rest.extend(&bytes[..n]);
        }
    }

    fn note(&mut self, heard: &JsonValue) {
        let method = member(heard, "method").map(text).unwrap_or_default();
        match method.as_str() {
            "Log.entryAdded" => {
                let entry = &heard["params"]["entry"];
                let said = text(&entry["text"]);
                match text(&entry["source"]).as_str() {
                    "network" => self.refusals.push(said),
                    _ => self.complaints.push(said),
                }
            }
            "Page.loadEventFired" => self.loaded = true,
            "Runtime.exceptionThrown" => self.complaints.push(text(&heard["params"])),
            _ => {}
        }
    }

    /// Opens that address.
    pub fn open(&mut self, url: &str) {
        // The empty page that it begins with may still be on its way, and come after the one that is asked for.
        loop {
            self.loaded = false;
            let params = format!("{{\"url\":{}}}", quoted(url));
            let failed = self.call("Page.navigate", &params);
            let failed = member(&failed, "errorText").map(text);
            // (Who asks the page that goes away may never be answered.)
            while !self.loaded && failed.is_none() {
                let heard = self.hear();
                self.note(&heard);
            }
            if failed.is_none() && self.says("location.protocol") == "http:" {
                break;
            }
            assert!(Instant::now() < self.deadline, "{url}: {failed:?}");
            std::thread::sleep(Duration::from_millis(30));
        }
        self.until("document.readyState === 'complete' && typeof state === 'object'");
    }

    /// The value of an expression, which may be a promise.
    pub fn value(&mut self, js: &str) -> JsonValue {
        let params = format!(
            "{{\"expression\":{},\"awaitPromise\":true,\"returnByValue\":true}}",
            quoted(js)
        );
        let answer = self.call("Runtime.evaluate", &params);
        let failed = member(&answer, "exceptionDetails").map(text);
        assert_eq!(failed, None, "{js}");
        member(&answer["result"], "value")
            .cloned()
            .unwrap_or(JsonValue::Null)
    }

    /// The same, as text.
    pub fn says(&mut self, js: &str) -> String {
        text(&self.value(js))
    }

    /// Waits until that is so; and if it does not come to that, says what the page shows.
    pub fn until(&mut self, js: &str) {
        // (A page that is being opened may not have it yet.)
        let js = format!("(() => {{ try {{ return {js}; }} catch {{ return false; }} }})()");
        while self.value(&format!("!!({js})")).get::<bool>() != Some(&true) {
            if Instant::now() > self.deadline {
                self.deadline = Instant::now() + Duration::from_secs(5);
                let page = self.says("document.body.innerText");
                panic!("waited in vain until {js}; the page shows:\n{page}");
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Presses a key, as a person does.
    pub fn press(&mut self, key: &str) {
        let (code, number, typed) = match key {
            "Enter" => ("Enter", 13, "\r"),
            "Tab" => ("Tab", 9, ""),
            " " => ("Space", 32, " "),
            "Escape" => ("Escape", 27, ""),
            "ArrowRight" => ("ArrowRight", 39, ""),
            "End" => ("End", 35, ""),
            other => panic!("{other}: which key is that?"),
        };
        let params = |kind: &str, typed: &str| {
            let typed = match typed {
                "" => String::new(),
                some => format!(",\"text\":{}", quoted(some)),
            };
            format!(
                "{{\"type\":\"{kind}\",\"key\":\"{key}\",\"code\":\"{code}\",\
                 \"windowsVirtualKeyCode\":{number}{typed}}}"
            )
        };
        let down = if typed.is_empty() {
            "rawKeyDown"
        } else {
            "keyDown"
        };
        self.call("Input.dispatchKeyEvent", &params(down, typed));
        self.call("Input.dispatchKeyEvent", &params("keyUp", ""));
    }

    /// Presses Tab until what has the focus is that, as one does who has no mouse.
    pub fn tab_to(&mut self, selector: &str) {
        let at = format!("document.activeElement?.matches({})", quoted(selector));
        for _ in 0..80 {
            self.press("Tab");
            if self.value(&at).get::<bool>() == Some(&true) {
                return;
            }
        }
        panic!("{selector} cannot be reached by Tab");
    }

    /// Types a text into what has the focus.
    pub fn types(&mut self, text: &str) {
        self.call(
            "Input.insertText",
            &format!("{{\"text\":{}}}", quoted(text)),
        );
    }

    /// Clicks in the middle of that, which has to be in sight and above all else there.
    pub fn click(&mut self, selector: &str) {
        let js = format!(
            "(() => {{ const e = document.querySelector({0}); e.scrollIntoView({{ block: 'center' }}); \
             const r = e.getBoundingClientRect(); const [x, y] = [r.x + r.width / 2, r.y + r.height / 2]; \
             const there = document.elementFromPoint(x, y); \
             return e.contains(there) && !e.disabled ? [x, y] : null; }})()",
            quoted(selector)
        );
        let at = self.value(&js);
        let Some(at) = at.get::<Vec<JsonValue>>() else {
            panic!("{selector} cannot be clicked");
        };
        let (x, y) = (text(&at[0]), text(&at[1]));
        for kind in ["mousePressed", "mouseReleased"] {
            let params = format!(
                "{{\"type\":\"{kind}\",\"x\":{x},\"y\":{y},\"button\":\"left\",\"clickCount\":1}}"
            );
            self.call("Input.dispatchMouseEvent", &params);
        }
    }

    /// So big it is, and so fine; below 500 it is a phone.
    pub fn size(&mut self, width: u32, height: u32, scale: f64) {
        let params = format!(
            "{{\"width\":{width},\"height\":{height},\"deviceScaleFactor\":{scale},\"mobile\":{}}}",
            width < 500
        );
        self.call("Emulation.setDeviceMetricsOverride", &params);
    }

    /// What the system prefers: `light` or `dark`.
    pub fn prefers(&mut self, scheme: &str) {
        let params = format!(
            "{{\"features\":[{{\"name\":\"prefers-color-scheme\",\"value\":\"{scheme}\"}}]}}"
        );
        self.call("Emulation.setEmulatedMedia", &params);
    }

    /// A picture of the whole page, if somebody wants to see it.
    pub fn picture(&mut self, name: &str) {
        let Some(dir) = std::env::var_os(SHOTS).map(PathBuf::from) else {
            return;
        };
        std::fs::create_dir_all(&dir).unwrap();
        let size = self.call("Page.getLayoutMetrics", "{}");
        let size = &size["cssContentSize"];
        let params = format!(
            "{{\"captureBeyondViewport\":true,\"clip\":{{\"x\":0,\"y\":0,\"width\":{},\"height\":{},\"scale\":1}}}}",
            text(&size["width"]),
            text(&size["height"])
        );
        let picture = self.call("Page.captureScreenshot", &params);
        let to = std::fs::File::create(dir.join(format!("{name}.png"))).unwrap();
        let mut decode = Command::new("base64")
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(to)
            .spawn()
            .unwrap();
        let data = text(&picture["data"]);
        decode
            .stdin
            .take()
            .unwrap()
            .write_all(data.as_bytes())
            .unwrap();
        assert!(decode.wait().unwrap().success());
    }

    /// It ends with nothing to complain of: nothing that was thrown, nothing that the page's policy had to refuse; and
    /// requests were refused only if this was expected.
    pub fn ends_content(mut self, refusals: bool) {
        self.value("1");
        assert!(self.complaints.is_empty(), "{:?}", self.complaints);
        assert!(refusals || self.refusals.is_empty(), "{:?}", self.refusals);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // All of it: it has more processes than this one, all of its group.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
