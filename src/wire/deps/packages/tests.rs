//! The formats of lock files, whole and broken; and what must not get out of them.

use super::*;

fn told(list: &List) -> Vec<String> {
    let one = |p: &Package| match p.version.as_str() {
        "" => p.name.clone(),
        version => format!("{}@{version}", p.name),
    };
    list.all.iter().map(one).collect()
}

#[test]
fn npms_lock_files_of_every_version() {
    let v3 = r#"{"name":"app","lockfileVersion":3,"packages":{"":{"name":"app","version":"1.0.0"},
        "node_modules/a":{"version":"1.2.3"},"node_modules/@s/b":{"version":"2.0.0-rc.1"},
        "node_modules/a/node_modules/c":{"version":"0.1.0"},
        "node_modules/alias":{"name":"real","version":"4.0.0"},
        "packages/own":{"version":"9.9.9"},
        "node_modules/own":{"resolved":"packages/own","link":true}}}"#;
    let want = ["@s/b@2.0.0-rc.1", "a@1.2.3", "c@0.1.0", "real@4.0.0"];
    assert_eq!(told(&package_lock(v3).unwrap()), want);
    let v1 = r#"{"lockfileVersion":1,"dependencies":{"a":{"version":"1.2.3",
        "dependencies":{"c":{"version":"0.1.0"}}},"@s/b":{"version":"2.0.0"},
        "git":{"version":"git+ssh://git@example.org/x.git#abc"}}}"#;
    let want = ["@s/b@2.0.0", "a@1.2.3", "c@0.1.0", "git"];
    assert_eq!(told(&package_lock(v1).unwrap()), want);
    for none in [
        "",
        "{}",
        "[]",
        "{\"packages\":",
        "nonsense",
        "{\"packages\":3",
    ] {
        assert_eq!(package_lock(none), None, "{none}");
    }
    assert_eq!(package_lock("{\"packages\":3}"), Some(List::default()));
}

#[test]
fn a_package_says_who_it_is() {
    let told = |text| package_json(text).map(|p| (p.name, p.version));
    let pair = |a: &str, b: &str| Some((a.to_string(), b.to_string()));
    let text = r#"{"name":"@scope/x","version":"1.0.0","dependencies":{"name":"y"}}"#;
    assert_eq!(told(text), pair("@scope/x", "1.0.0"));
    assert_eq!(told(r#"{"name":"x"}"#), pair("x", ""));
    assert_eq!(told(r#"{"name":"x","version":7}"#), pair("x", ""));
    for none in [
        "",
        "{}",
        r#"{"version":"1"}"#,
        r#"{"name":"a b"}"#,
        "x",
        r#"{"name":[]}"#,
    ] {
        assert_eq!(told(none), None, "{none}");
    }
}

#[test]
fn lock_files_in_toml() {
    let cargo = "# This file\nversion = 4\n\n[[package]]\nname = \"libc\"\nversion = \"0.2.1\"\n\
        source = \"registry+https://x\"\ndependencies = [\n \"name\",\n]\n\n[[package]]\nname = \"mio\"\n\
        version = \"1.2.5\"\n";
    assert_eq!(
        told(&toml_lock(cargo).unwrap()),
        ["libc@0.2.1", "mio@1.2.5"]
    );
    let poetry = "[[package]]\nname = \"a\"\nversion = \"1.0\"\n[package.dependencies]\nname = \"no\"\n\
        [[package]]\r\nname = \"b\"\r\n[metadata]\nversion = \"3\"\n";
    assert_eq!(told(&toml_lock(poetry).unwrap()), ["a@1.0", "b"]);
    for none in ["", "name = \"x\"", "[package]\nname = \"x\""] {
        assert_eq!(toml_lock(none), None, "{none}");
    }
}

#[test]
fn those_of_ruby_php_and_python() {
    let gems = "GEM\n  remote: https://user:secret@rubygems.org/\n  specs:\n    rack (3.0.8)\n    puma (6.4.0)\n      \
        nio4r (~> 2.0)\n\nPLATFORMS\n  ruby\n\nDEPENDENCIES\n  puma\n";
    assert_eq!(
        told(&gemfile_lock(gems).unwrap()),
        ["puma@6.4.0", "rack@3.0.8"]
    );
    assert_eq!(gemfile_lock("DEPENDENCIES\n    rack (1)\n"), None);
    let php =
        r#"{"packages":[{"name":"v/a","version":"v1.0.0"},{"version":"1"},3],"packages-dev":[]}"#;
    assert_eq!(told(&composer_lock(php).unwrap()), ["v/a@v1.0.0"]);
    assert_eq!(composer_lock("{}"), None);
    let pip = r#"{"_meta":{},"default":{"flask":{"version":"==3.0.0"},"x":{}},"develop":{"y":{"version":"*"}}}"#;
    assert_eq!(
        told(&pipfile_lock(pip).unwrap()),
        ["flask@3.0.0", "x", "y@*"]
    );
    assert_eq!(pipfile_lock("{\"defaults\":{}}"), None);
}

#[test]
fn requirements_are_names_and_what_is_exact_of_them() {
    let text = "# all\nflask==3.0.0\nDjango [argon2] == 5.0 ; python_version > '3.8'\nrequests>=2\nuvicorn\n\
        six==1.0 --hash=sha256:abc\n-r other.txt\n--index-url https://u:p@h/\ngit+https://token@h/x\n\
        x @ https://token@h/x.whl\n./local\nroot:$6$abc:19000:0:99999:7:::\n";
    let want = [
        "Django@5.0",
        "flask@3.0.0",
        "requests",
        "six@1.0",
        "uvicorn",
    ];
    assert_eq!(told(&requirements(text)), want);
}

#[test]
fn what_is_installed_in_python_is_named_by_its_directory() {
    for (file, want) in [
        ("flask-3.0.0.dist-info", Some(("flask", "3.0.0"))),
        (
            "zope_interface-6.1.dist-info",
            Some(("zope_interface", "6.1")),
        ),
        ("PyYAML-6.0-py3.11.egg-info", Some(("PyYAML", "6.0"))),
        ("flask", None),
        ("flask.dist-info", None),
        ("-3.dist-info", None),
        ("a b-3.dist-info", None),
        ("a-.dist-info", None),
        (".dist-info", None),
    ] {
        let got = dist_info(file);
        let got = got.as_ref().map(|p| (p.name.as_str(), p.version.as_str()));
        assert_eq!(got, want, "{file}");
    }
}

#[test]
fn nothing_but_names_and_versions_gets_out() {
    for bad in [
        "",
        "a b",
        "a\n",
        "../x",
        "a//b",
        "http://x",
        "x:y",
        "é",
        "a\u{1b}[2J",
    ] {
        assert_eq!(Package::new(bad, "1"), None, "{bad:?}");
    }
    for bad in ["", "1 2", "https://u:p@h", "1/2", "a\nb", "file:x"] {
        assert_eq!(Package::new("x", bad).unwrap().version, "", "{bad:?}");
    }
    assert_eq!(Package::new(&"x".repeat(MAX_NAME + 1), "1"), None);
    assert_eq!(
        Package::new("x", &"1".repeat(MAX_VERSION + 1))
            .unwrap()
            .version,
        ""
    );
}

#[test]
fn of_more_than_may_be_told_it_is_known_how_many() {
    let mut text = String::new();
    for n in 0..MAX_PACKAGES + 3 {
        text.push_str(&format!("p{n}==1\n"));
    }
    let list = requirements(&text);
    assert_eq!((list.all.len(), list.left_out), (MAX_PACKAGES, 3));
    assert!(list.is_full());
    // What cannot be told takes no room.
    let mut list = List::default();
    for name in ["a\u{1b}[2J", "", "https://u:p@h", "good"] {
        list.add(name, "1");
    }
    assert_eq!(told(&list), ["good@1"]);
    assert_eq!((list.left_out, list.is_full()), (3, false));
}
