//! The monitor page: three files, embedded, which a browser asks for one after the other. They are the same for
//! all clusters and tell nothing of this one, so anybody may have them; what the page shows it asks for as any
//! client does, with the key that it was given. Nothing in it comes from anywhere else, and `POLICY` sees to it
//! that nothing can.

/// One of the files that the page asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    pub content_type: &'static str,
    pub text: &'static str,
}

/// What is asked for first.
const PAGE: &str = include_str!("page.html");

/// What there is to be opened: a page that does not know it would have to try, and each try without a key is
/// one more that the log has to warn of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Whoever gets here may all.
    Open,
    /// There is a key.
    Key,
    /// There is none.
    Shut,
}

/// The page, for who stands before that.
pub fn page(lock: Lock) -> String {
    let word = match lock {
        Lock::Open => "open",
        Lock::Key => "key",
        Lock::Shut => "shut",
    };
    let (unknown, known) = ("data-lock=\"\"", format!("data-lock=\"{word}\""));
    PAGE.replacen(unknown, &known, 1)
}

/// How it looks.
pub static STYLE: Asset = Asset {
    content_type: "text/css; charset=utf-8",
    text: include_str!("page.css"),
};

/// What it does, in the order in which the parts need each other.
pub static SCRIPT: Asset = Asset {
    content_type: "text/javascript; charset=utf-8",
    text: concat!(
        include_str!("js/base.js"),
        include_str!("js/ask.js"),
        include_str!("js/charts.js"),
        include_str!("js/glance.js"),
        include_str!("js/slots.js"),
        include_str!("js/panels.js"),
        include_str!("js/deeds.js"),
        include_str!("js/main.js"),
    ),
};

/// What a browser is to refuse, should something that a worker has said ever be taken for more than text: scripts
/// but ours, requests but to us, being shown inside of another page, forms that go anywhere.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'";

/// The headers of each of them, beside those of all answers.
pub static HEADERS: [(&str, &str); 5] = [
    ("Content-Security-Policy", POLICY),
    // For browsers that do not know frame-ancestors.
    ("X-Frame-Options", "DENY"),
    // The address may hold a key, until the page has taken it out of there.
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_knows_what_it_stands_before() {
        for (lock, word) in [
            (Lock::Open, "open"),
            (Lock::Key, "key"),
            (Lock::Shut, "shut"),
        ] {
            let body = format!("<body data-lock=\"{word}\">");
            assert!(page(lock).contains(&body), "{word}");
        }
    }

    #[test]
    fn nothing_in_it_is_from_elsewhere_or_would_be_refused_by_the_policy() {
        let page = page(Lock::Key);
        for part in [
            "http:",
            "https:",
            " style=",
            " onclick=",
            "<style",
            "<script>",
        ] {
            assert!(!page.contains(part), "page.html has {part}");
        }
        for part in ["@import", "url(", "http:", "https:"] {
            assert!(!STYLE.text.contains(part), "page.css has {part}");
        }
        // (The name of a kind of markup is no place.)
        let script = SCRIPT.text.replace("http://www.w3.org/2000/svg", "");
        for part in [
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "http:",
            "https:",
            "import(",
        ] {
            assert!(!script.contains(part), "page.js has {part}");
        }
    }
}
