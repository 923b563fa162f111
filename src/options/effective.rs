//! What holds: of each option the values that count, as they were said, and where they were.

use super::{Opt, Scope, all};
use crate::settings::{Settings, Sources};

/// Who said it.
const TYPED: &str = "typed";
const CONFIG: &str = "config";
const DEFAULT: &str = "default";

/// An option, its values, and where they come from.
pub type Holds = (&'static str, Vec<String>, &'static str);

/// Those that were said, and of the others the defaults. Values of --env are somebody's secrets: only
/// their names are told.
pub fn effective(s: &Settings) -> Vec<Holds> {
    let options = all().filter(|o| o.scope != Scope::Client);
    let all = options.filter_map(|o| holds(o, &s.sources));
    let implied = |h: Holds| match h {
        // Others may imply another one.
        ("balance", _, DEFAULT) => ("balance", vec![s.balance().word().into()], DEFAULT),
        h => h,
    };
    all.map(implied).collect()
}

fn holds(o: &'static Opt, from: &Sources) -> Option<Holds> {
    let of = |said: &[(&'static str, String)]| -> Vec<String> {
        let mine = said.iter().filter(|(long, _)| *long == o.long);
        mine.map(|(_, v)| shown(o, v)).collect()
    };
    let (typed, mut filed) = (of(&from.typed), of(&from.filed));
    if !o.keyed && !typed.is_empty() {
        filed.clear();
    }
    match (filed.is_empty(), typed.is_empty()) {
        (true, true) if o.default.is_empty() => None,
        (true, true) => Some((o.long, vec![o.default.to_string()], DEFAULT)),
        (true, false) => Some((o.long, typed, TYPED)),
        (false, true) => Some((o.long, filed, CONFIG)),
        (false, false) => Some((o.long, [filed, typed].concat(), TYPED)),
    }
}

fn shown(o: &Opt, value: &str) -> String {
    match (o.secret, value.split_once('=')) {
        (true, Some((name, _))) => format!("{name}=..."),
        (true, None) | (false, _) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::config;

    #[test]
    fn what_was_typed_wins_and_secrets_are_not_told() {
        let mut s = Settings::default();
        let file = b"workers 4\nport 80\nenv A=1\nquiet\n";
        let (entries, wrong) = config::parse("f", file);
        assert_eq!(wrong, None);
        let said = entries.iter().map(|e| (e.opt.long, e.value.clone()));
        s.sources.filed = said.collect();
        let typed = |long, v: &str| (long, v.to_string());
        s.sources.typed = vec![
            typed("port", "90"),
            typed("port", "91"),
            typed("env", "K=s"),
        ];
        let all = effective(&s);
        let of = |long: &str| all.iter().find(|h| h.0 == long).cloned();
        let words = |w: &[&str]| w.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        assert_eq!(of("workers"), Some(("workers", words(&["4"]), CONFIG)));
        assert_eq!(of("port"), Some(("port", words(&["90", "91"]), TYPED)));
        assert_eq!(of("env"), Some(("env", words(&["A=...", "K=..."]), TYPED)));
        assert_eq!(of("quiet"), Some(("quiet", words(&[""]), CONFIG)));
        assert_eq!(
            of("drain-timeout"),
            Some(("drain-timeout", words(&["10s"]), DEFAULT))
        );
        assert_eq!(of("json"), None);
        assert_eq!(
            of("balance"),
            Some(("balance", words(&["shared"]), DEFAULT))
        );
        s.max_connections = Some(8);
        let all = effective(&s);
        let balance = all.iter().find(|h| h.0 == "balance").cloned();
        assert_eq!(balance, Some(("balance", words(&["hash"]), DEFAULT)));
        assert_eq!(of("watch").map(|h| h.2), Some(DEFAULT));
    }
}
