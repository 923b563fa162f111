//! What Kubernetes takes: a Deployment and, if ports are given, a Service. The probes ask the master: whether it
//! lives, which draining does not change, and whether clients are to come, which they are not from the first
//! moment of a stop.

use super::plan::{BINARY, Plan, join};
use super::quote::{comment, k8s as word, yaml};
use super::times;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

/// Nobody's number, in images that have no user.
const NOBODY: u32 = 65_532;
/// So much longer than we take at most.
const GRACE: u64 = 2;

/// Both.
pub fn manifest(p: &Plan) -> String {
    let name = dns(&p.name);
    let mut text = String::from(
        "# By minicluster --print-unit k8s. The image is that of --print-unit containerfile. What it is called, how many\n\
         # replicas there are and what they may use is yours to say.\n",
    );
    text.push_str(&p.notes_text());
    if !p.env.is_empty() {
        let keys: Vec<String> = p
            .env
            .iter()
            .map(|n| format!("--from-literal={}=..", comment(n)))
            .collect();
        text.push_str(&format!(
            "# Values of --env are a Secret's: kubectl create secret generic {name}-env {}\n",
            keys.join(" ")
        ));
    }
    text.push_str(&deployment(p, &name));
    text.push_str(&service(p, &name));
    text
}

/// What is written to is a volume: it hides what the image has there, and its place has no colon.
pub fn refuse(p: &Plan) -> Result<(), String> {
    if let Some(dir) = p.written.iter().find(|dir| dir.contains(':')) {
        return Err(format!(
            "{} is written to, so it is a volume, and mountPath: takes no ':': give it another name",
            comment(dir)
        ));
    }
    let read = [Some(BINARY.to_string()), p.command.first().cloned()];
    let s = &p.settings;
    let there = s.cwd.iter().chain(&s.env_files);
    let there = there.map(|f| join(&p.here, &f.to_string_lossy()));
    for file in read.into_iter().flatten().chain(there) {
        let hides = |dir: &&String| Path::new(&file).starts_with(dir);
        if let Some(dir) = p.written.iter().find(hides) {
            return Err(format!(
                "{} is written to, so it is a volume, which would hide {}: write elsewhere",
                comment(dir),
                comment(&file)
            ));
        }
    }
    Ok(())
}

/// A name as Kubernetes has them.
fn dns(name: &str) -> String {
    let fit = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    };
    let all: String = name.chars().map(fit).take(50).collect();
    let all = all.trim_matches('-');
    match all.starts_with(|c: char| c.is_ascii_lowercase()) {
        true => all.to_string(),
        // That of a Service has to.
        false => format!("m-{all}").trim_end_matches('-').to_string(),
    }
}

fn deployment(p: &Plan, name: &str) -> String {
    let label = yaml(name);
    let budget = p
        .policy
        .stop_budget
        .map_or_else(|| times::stop(&p.policy), times::seconds);
    let pod = match p.privileged() && !p.user() {
        true => {
            "      securityContext:\n        sysctls:\n        # A port below 1024, for who is not root.\n        - name: net.ipv4.ip_unprivileged_port_start\n          value: \"0\"\n"
        }
        false => "",
    };
    let mut text = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {label}\n  labels:\n    app: {label}\n\
         spec:\n  replicas: 2\n  selector:\n    matchLabels:\n      app: {label}\n  strategy:\n    rollingUpdate:\n      maxSurge: 1\n      maxUnavailable: 0\n\
         \x20 template:\n    metadata:\n      labels:\n        app: {label}\n    spec:\n\
         \x20     # --stop-budget, and {GRACE} s. It includes --drain-delay, which stands for a sleep in preStop.\n\
         \x20     terminationGracePeriodSeconds: {}\n      automountServiceAccountToken: false\n{pod}\
         \x20     containers:\n      - name: {label}\n        image: {}\n",
        budget.saturating_add(GRACE),
        yaml(&format!("{name}:1"))
    );
    text.push_str(&format!(
        "        command: [{}]\n        args:\n",
        word(BINARY)
    ));
    for words in &p.options {
        let all: Vec<String> = words
            .iter()
            .map(|w| format!("        - {}\n", word(w)))
            .collect();
        text.push_str(&all.concat());
    }
    text.push_str("        - \"--\"\n");
    for w in &p.command {
        text.push_str(&format!("        - {}\n", word(w)));
    }
    if !p.env.is_empty() {
        let secret = yaml(&format!("{name}-env"));
        text.push_str(&format!(
            "        envFrom:\n        - secretRef:\n            name: {secret}\n"
        ));
    }
    text.push_str("        ports:\n");
    for (n, port) in ports(p).iter().enumerate() {
        text.push_str(&format!(
            "        - name: port-{n}\n          containerPort: {port}\n"
        ));
    }
    text.push_str(&probes(p));
    text.push_str(&resources(p));
    text.push_str(&rights(p));
    text.push_str(&volumes(p));
    text
}

/// Those that are served, each once.
fn ports(p: &Plan) -> Vec<u16> {
    let mut all: Vec<u16> = p
        .tcp()
        .iter()
        .map(SocketAddr::port)
        .filter(|n| *n != 0)
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn probes(p: &Plan) -> String {
    const EACH: u64 = 2;
    let Some(at) = p.settings.monitor else {
        return String::new();
    };
    // Without a limit of ours: an hour.
    let start = p.policy.start_timeout.map_or(3600, times::seconds);
    let failures = start.div_ceil(EACH).saturating_add(5);
    let ask = |path: &str, each: u64, failures: u64| {
        format!(
            "          httpGet:\n            path: {path}\n            port: monitor\n          periodSeconds: {each}\n          timeoutSeconds: 2\n          failureThreshold: {failures}\n"
        )
    };
    format!(
        "        - name: monitor\n          containerPort: {}\n\
         \x20       # As long as --start-timeout: then the master gives up by itself, with the reason in its log.\n        startupProbe:\n{}\
         \x20       # 503 from the first moment of a stop, and while nobody serves.\n        readinessProbe:\n{}\
         \x20       # About the master alone: workers are its business.\n        livenessProbe:\n{}",
        at.port(),
        ask("/ready", EACH, failures),
        ask("/ready", EACH, 1),
        ask("/live", 10, 3)
    )
}

fn resources(p: &Plan) -> String {
    let (cpus, note) = match p.settings.workers {
        Some(n) => (n, "# One CPU for each worker."),
        None => (2, "# -n is not said: as many workers as the limit of CPUs."),
    };
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let (memory, why) = match p.settings.max_rss {
        Some(each) => (
            mib(each)
                .saturating_mul(2)
                .saturating_mul(u64::from(cpus))
                .saturating_add(32),
            "--max-rss for each, twice: there are as many again during a reload (--surge).",
        ),
        None => (
            256_u64.saturating_mul(u64::from(cpus)).saturating_add(32),
            "A guess: measure. There are as many workers again during a reload (--surge).",
        ),
    };
    format!(
        "        resources:\n          requests:\n            cpu: 250m\n            memory: 64Mi\n          limits:\n\
         \x20           {note}\n            cpu: {}\n            # {why}\n            memory: {memory}Mi\n",
        yaml(&cpus.to_string())
    )
}

fn rights(p: &Plan) -> String {
    let head = "        # seccomp(2) of the default profile is enough for takeover; with runtimes where it is not (gVisor),\n\
                \x20       # and with another profile that refuses it, the master says so, and --takeover off is the way.\n\
                \x20       # Where it may be, add SYS_PTRACE: idle connections are ended from outside, and a reload need not wait for\n\
                \x20       # them; and NET_ADMIN: a connection that never rests is not cut in a request (minicluster --check).\n\
                \x20       securityContext:\n          allowPrivilegeEscalation: false\n          readOnlyRootFilesystem: true\n\
                \x20         seccompProfile:\n            type: RuntimeDefault\n";
    match p.user() {
        true => format!(
            "{head}          # Root, to have the workers run as --user says.\n          runAsUser: 0\n          capabilities:\n\
             \x20           drop: [\"ALL\"]\n            add: [\"SETUID\", \"SETGID\", \"KILL\", \"CHOWN\", \"DAC_OVERRIDE\", \"NET_BIND_SERVICE\"]\n"
        ),
        false => format!(
            "{head}          runAsNonRoot: true\n          runAsUser: {NOBODY}\n          runAsGroup: {NOBODY}\n          capabilities:\n            drop: [\"ALL\"]\n"
        ),
    }
}

/// Nothing else can be written to.
fn volumes(p: &Plan) -> String {
    // The control socket: root's is in /run, that of others in /tmp.
    let ours = ["/tmp"].into_iter().chain(p.user().then_some("/run"));
    let dirs: BTreeSet<&str> = ours.chain(p.written.iter().map(String::as_str)).collect();
    let mut text = String::from("        volumeMounts:\n");
    for (n, dir) in dirs.iter().enumerate() {
        text.push_str(&format!(
            "        - name: written-{n}\n          mountPath: {}\n",
            yaml(dir)
        ));
    }
    text.push_str("      volumes:\n");
    for n in 0..dirs.len() {
        text.push_str(&format!(
            "      - name: written-{n}\n        emptyDir: {{}}\n"
        ));
    }
    text
}

fn service(p: &Plan, name: &str) -> String {
    let ports = ports(p);
    if ports.is_empty() {
        return "# No port is given, so there is no Service.\n".into();
    }
    let name = yaml(name);
    let mut text = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  labels:\n    app: {name}\nspec:\n  selector:\n    app: {name}\n  ports:\n"
    );
    for (n, port) in ports.iter().enumerate() {
        text.push_str(&format!(
            "  - name: port-{n}\n    port: {port}\n    targetPort: port-{n}\n"
        ));
    }
    text
}
