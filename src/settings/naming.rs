//! What a cluster is called that was given no name.

use super::Settings;

impl Settings {
    /// The cluster's name if none is given: the command's (an interpreter's script's), and the port.
    pub fn implied_name(&self) -> String {
        let words: Vec<String> = self
            .command
            .iter()
            .map(|w| w.to_string_lossy().into_owned())
            .collect();
        let mut name = clean(&program_word(&words));
        if let Some(a) = self.tcp_addresses().first().filter(|a| a.port() != 0) {
            name = format!("{name}-{}", a.port());
        }
        name
    }
}

/// The word that says best what runs.
fn program_word(words: &[String]) -> String {
    const INTERPRETERS: [&str; 14] = [
        "sh", "bash", "dash", "zsh", "node", "nodejs", "bun", "deno", "ruby", "perl", "php",
        "java", "lua", "env",
    ];
    let base = |w: &str| w.rsplit('/').next().unwrap_or(w).to_string();
    let first = words.first().map(|w| base(w)).unwrap_or_default();
    let interpreter = INTERPRETERS.contains(&first.as_str()) || first.starts_with("python");
    let mut rest = words.iter().skip(1);
    match interpreter {
        false => first,
        true => loop {
            match rest.next().map(String::as_str) {
                // What follows is code, not a name.
                None | Some("-c" | "-e") => return first,
                Some(w) if w.starts_with('-') || w.contains('=') => {}
                Some(w) => return base(w),
            }
        },
    }
}

/// As a file name: at most 64 of the harmless characters.
pub(super) fn clean(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let s: String = text
        .trim_start_matches('.')
        .chars()
        .map(|c| if harmless(c) { c } else { '_' })
        .take(64)
        .collect();
    match s.is_empty() {
        true => "cluster".into(),
        false => s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_what_runs() {
        let named = |words: &[&str], port: Option<u16>| {
            let s = Settings {
                command: words.iter().map(Into::into).collect(),
                ports: port.into_iter().collect(),
                ..Settings::default()
            };
            s.implied_name()
        };
        assert_eq!(named(&["./server"], Some(3000)), "server-3000");
        assert_eq!(
            named(&["/usr/bin/node", "--inspect", "app/main.js"], None),
            "main.js"
        );
        assert_eq!(
            named(&["python3", "-m", "http.server", "8000"], None),
            "http.server"
        );
        assert_eq!(named(&["sh", "-c", "exec node x.js"], None), "sh");
        assert_eq!(named(&["npm", "start"], Some(0)), "npm");
        assert_eq!(named(&["./.."], None), "cluster");
        assert_eq!(named(&["./a b"], None), "a_b");
    }
}
