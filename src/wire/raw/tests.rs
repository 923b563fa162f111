//! JSON as it came: what is taken, what is found in it, and what is equal to what.

use super::*;
use tinyjson::JsonValue;

fn raw(text: &str) -> Raw<'_> {
    Raw::parse(text).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn what_is_json_is_taken_as_it_came_and_nothing_else() {
    for fine in [
        "{}",
        "[]",
        " [ 1 , -0 , 1.5e+3 , 0.1 ] ",
        "\"\\u00e4\\n\\/\"",
        "{\"a\":{\"b\":[true,false,null]}}",
        "123456789012345678901234567890",
        "\"\\ud800\"",
    ] {
        assert_eq!(raw(fine).text(), fine.trim());
    }
    for bad in [
        "",
        " ",
        "{",
        "}",
        "{a:1}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "[1,]",
        "[,1]",
        "[1 2]",
        "01",
        "1.",
        ".5",
        "+1",
        "-",
        "1e",
        "nul",
        "truex",
        "\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\t\"",
        "'a'",
        "1 1",
        "{}{}",
        "NaN",
        "\u{feff}1",
    ] {
        assert_eq!(Raw::parse(bad), None, "{bad}");
    }
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(Raw::parse(&deep(MAX_DEPTH)).is_some());
    assert!(Raw::parse(&deep(MAX_DEPTH + 1)).is_none());
    assert!(Raw::parse(&"[".repeat(1_000_000)).is_none());
}

#[test]
fn members_are_found_with_all_their_digits_and_the_last_counts() {
    let text = "{ \"msg\" : 12345678901234567890 , \"a\":{\"cmd\":\"inner\"}, \"c\\u006dd\": \"x\\\"y\", \"msg\":{\"b\": [1, 2]} }";
    let [cmd, msg, none] = raw(text).members(["cmd", "msg", "none"]);
    assert_eq!(cmd.unwrap().string().unwrap(), "x\"y");
    assert!(cmd.unwrap().is("x\"y"));
    assert_eq!(msg.unwrap().text(), "{\"b\": [1, 2]}");
    assert_eq!(none, None);
    let [big] = raw("{\"n\":12345678901234567890}").members(["n"]);
    assert_eq!(big.unwrap().text(), "12345678901234567890");
    for none in ["[]", "\"cmd\"", "7", "null"] {
        assert_eq!(raw(none).members(["cmd"]), [None]);
    }
}

#[test]
fn lists_strings_numbers_and_truth() {
    let items = raw("[1, \"a\" ,[2,3]]").items(3).unwrap();
    let texts: Vec<&str> = items.iter().map(|i| i.text()).collect();
    assert_eq!(texts, ["1", "\"a\"", "[2,3]"]);
    assert_eq!(raw("[1,2]").items(1), None);
    assert_eq!(raw("{}").items(1), None);
    assert_eq!(raw("\"\\ud83d\\ude00 \\u00fc\"").string().unwrap(), "😀 ü");
    assert_eq!(raw("\"\\ud83d\\u0041\"").string().unwrap(), "\u{fffd}A");
    assert_eq!(raw("\"\\ude00\"").string().unwrap(), "\u{fffd}");
    assert_eq!(raw("true").string(), None);
    assert_eq!(raw("-2.5e1").number(), Some(-25.0));
    assert_eq!(raw("\"1\"").number(), None);
    for no in ["0", "-0.0", "false", "null", "\"\""] {
        assert!(!raw(no).is_truthy(), "{no}");
    }
    for yes in ["1", "\"0\"", "[]", "{}", "true"] {
        assert!(raw(yes).is_truthy(), "{yes}");
    }
}

#[test]
fn equal_values_have_one_text() {
    let same = |a: &str, b: &str| raw(a).canonical() == raw(b).canonical();
    for (a, b) in [
        ("{\"a\":1,\"b\":2}", "{ \"b\" : 2, \"a\":1 }"),
        ("{\"a\":0,\"a\":1}", "{\"a\":1}"),
        ("1.0", "1e0"),
        ("0", "-0"),
        ("\"\\u0061\"", "\"a\""),
        ("[\"\\\"\"]", "[ \"\\u0022\" ]"),
        ("\"\\uD83D\\uDE00\"", "\"😀\""),
    ] {
        assert!(same(a, b), "{a} {b}");
    }
    for (a, b) in [
        ("9007199254740993", "9007199254740992"),
        ("1", "\"1\""),
        ("[1,2]", "[2,1]"),
        ("[[1],2]", "[1,[2]]"),
        ("{\"a\":\"b\\\",\\\"c\"}", "{\"a\":\"b\",\"c\":\"\"}"),
        ("\"\\ud800\"", "\"\\ud801\""),
        ("null", "\"null\""),
    ] {
        assert!(!same(a, b), "{a} {b}");
    }
}

/// A small generator of its own: the same numbers on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn value(&mut self, depth: usize) -> String {
        let blank = ["", "", " ", "\t"][self.roll(4)];
        let text = match self.roll(if depth > 4 { 5 } else { 7 }) {
            0 => format!("{}", self.roll(1_000_000)),
            1 => ["-0.5", "1e9", "0", "12345678901234567890"][self.roll(4)].into(),
            2 => ["true", "false", "null"][self.roll(3)].into(),
            3 | 4 => ["\"a\"", "\"\\u00e4\\\\\"", "\"{[,:]}\\\"\"", "\"ü\""][self.roll(4)].into(),
            5 => {
                let n = self.roll(4);
                let all: Vec<String> = (0..n).map(|_| self.value(depth + 1)).collect();
                format!("[{}]", all.join(","))
            }
            _ => {
                let n = self.roll(4);
                let all: Vec<String> = (0..n)
                    .map(|i| format!("\"k{i}\":{}", self.value(depth + 1)))
                    .collect();
                format!("{{{}}}", all.join(","))
            }
        };
        format!("{blank}{text}{blank}")
    }
}

#[test]
fn ten_thousand_inputs_good_and_spoilt_are_judged_as_another_parser_does() {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let (mut good, mut spoilt) = (0, 0);
    for n in 0..10_000 {
        let mut bytes = dice.value(0).into_bytes();
        // Every second one loses, gains or changes some bytes.
        for _ in 0..if n % 2 == 0 { 0 } else { 1 + dice.roll(3) } {
            let at = dice.roll(bytes.len().max(1)).min(bytes.len());
            match dice.roll(3) {
                0 if !bytes.is_empty() => drop(bytes.remove(at.min(bytes.len() - 1))),
                1 => bytes.insert(at, b"\"\\{}[],:0-e.u \x01\xff"[dice.roll(16)]),
                _ => bytes.truncate(at),
            }
        }
        let Ok(text) = std::str::from_utf8(&bytes) else {
            continue;
        };
        let theirs = text.parse::<JsonValue>();
        let Some(ours) = Raw::parse(text) else {
            spoilt += 1;
            assert!(n % 2 == 1, "{text}");
            continue;
        };
        good += 1;
        // (It takes more than RFC 8259 has; never less.)
        let theirs = theirs.unwrap_or_else(|e| panic!("{text}: {e}"));
        let spaced = format!(" {}\t", ours.text());
        assert_eq!(raw(&spaced).canonical(), ours.canonical());
        assert_eq!(ours.number().is_some(), theirs.is_number());
        if let JsonValue::Object(map) = &theirs {
            let mut names = 0;
            ours.each_member(|key, value| {
                names += 1;
                assert!(map.contains_key(key.string().unwrap().as_ref()), "{text}");
                assert_eq!(Raw::parse(value.text()), Some(value), "{text}");
            });
            assert!(names >= map.len());
        }
        if let JsonValue::Array(items) = &theirs {
            assert_eq!(ours.items(usize::MAX).unwrap().len(), items.len());
        }
        if let JsonValue::String(s) = &theirs {
            assert_eq!(ours.string().unwrap(), s.as_str());
        }
    }
    assert!(good > 5_000 && spoilt > 2_000, "{good} {spoilt}");
}
