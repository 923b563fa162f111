//! "FAULTS": what goes wrong around a master that runs, what is promised then, what is said, and which story
//! injects it. The manual has the same list, in the same order (tests/tidy.rs).

/// One of them.
pub struct Fault {
    pub name: &'static str,
    /// How it is injected.
    pub how: &'static str,
    pub promise: &'static str,
    /// Events of the log.
    pub says: &'static [&'static str],
    /// A file of these tests and a test in it.
    pub story: &'static str,
}

const fn fault(
    name: &'static str,
    how: &'static str,
    promise: &'static str,
    says: &'static [&'static str],
    story: &'static str,
) -> Fault {
    Fault {
        name,
        how,
        promise,
        says,
        story,
    }
}

pub const FAULTS: &[Fault] = &[
    fault(
        "no process (EAGAIN)",
        "RLIMIT_NPROC of an ordinary user",
        "others serve, a reload is called off, the slot retries",
        &["spawn-failed", "reload-failed"],
        "faults::without_room_for_a_process_the_others_serve_and_the_slot_is_filled_when_there_is",
    ),
    fault(
        "no memory (ENOMEM)",
        "fork(2) fails",
        "the same",
        &["spawn-failed", "reload-failed"],
        "faults::so_it_is_without_memory_for_one",
    ),
    fault(
        "no descriptor (EMFILE)",
        "prlimit(1) on the master, down to each number that it has",
        "the same, and whole again when there is room",
        &["spawn-failed", "exec-failed"],
        "faults::with_any_number_of_descriptors_it_goes_on_and_is_whole_again_with_enough",
    ),
    fault(
        "disk full",
        "a small tmpfs, /dev/full",
        "lines are lost and counted; no pid file, no start",
        &["log-lost"],
        "robust::a_full_disk_costs_the_lines_that_had_no_room_and_no_more",
    ),
    fault(
        "disk full: pid file",
        "a full tmpfs",
        "exit 73, and nothing is left",
        &[],
        "faults::without_room_for_its_pid_file_it_does_not_start",
    ),
    fault(
        "disk full: --log-dir",
        "a small tmpfs",
        "lines are lost and counted, workers go on",
        &["log-failed"],
        "logs::a_full_disk_costs_lines_that_are_counted_and_holds_nobody_up",
    ),
    fault(
        "runtime directory read-only or full",
        "a tmpfs, mounted so",
        "no control socket; it serves, and hears signals",
        &["no-control"],
        "faults::without_a_place_for_its_socket_it_serves_and_hears_signals",
    ),
    fault(
        "runtime directory gone",
        "umount(8)",
        "verbs do not find it; it serves, and hears signals",
        &[],
        "faults::when_the_disk_of_its_socket_has_gone_it_serves_and_hears_signals",
    ),
    fault(
        "stderr not read",
        "a pipe, a terminal, full",
        "who writes waits, the master does not",
        &["log-lost"],
        "robust::a_stderr_that_nobody_reads_holds_up_those_who_write_and_not_the_master",
    ),
    fault(
        "pid reused",
        "ns_last_pid in a pid namespace",
        "no signal to the stranger",
        &[],
        "faults::the_number_of_a_dead_worker_may_be_a_strangers_and_that_one_lives",
    ),
    fault(
        "master stopped",
        "SIGSTOP for 10 s, then SIGCONT",
        "workers serve; nobody is judged by that time",
        &["stood-still"],
        "faults_time::by_the_time_that_the_master_was_stopped_nobody_is_judged",
    ),
    fault(
        "clock set",
        "CLOCK_REALTIME steps by years, both ways",
        "stamps step; nothing else does",
        &[],
        "faults_time::a_clock_that_is_set_changes_stamps_and_nothing_else",
    ),
    fault(
        "signals without end",
        "SIGCHLD, SIGCONT, SIGWINCH as fast as it goes",
        "all goes on, timers too",
        &[],
        "faults_time::signals_without_end_keep_nobody_waiting",
    ),
    fault(
        "listener closed or shut down by a worker",
        "shutdown(2) of what all share",
        "it listens again",
        &["lane-silenced"],
        "strangers::a_socket_that_a_worker_shuts_down_for_all_listens_again",
    ),
    fault(
        "worker dies in bind(2)",
        "SIGKILL while its call is unanswered, 200 times",
        "replaced, no call is answered for another",
        &["died"],
        "faults::two_hundred_workers_that_are_killed_in_the_midst_of_bind_are_replaced",
    ),
    fault(
        "1000 workers killed at once",
        "SIGKILL",
        "others serve, all are back",
        &["died"],
        "faults_heavy::heavy_a_thousand_workers_that_are_killed_at_once_are_back_at_once",
    ),
    fault(
        "master killed in a reload",
        "SIGKILL",
        "workers of both generations end; the next start is whole",
        &[],
        "faults::a_master_that_is_killed_in_the_midst_of_a_reload_leaves_nothing_in_the_way",
    ),
    fault(
        "handover without descriptors",
        "prlimit(1)",
        "not handed over, all as it was",
        &["handover-failed"],
        "faults_handover::what_is_refused_to_a_handover_leaves_all_as_it_was",
    ),
    fault(
        "handover without memfd_create(2)",
        "ENOSYS, EPERM",
        "the same",
        &["handover-failed"],
        "faults_handover::what_is_refused_to_a_handover_leaves_all_as_it_was",
    ),
    fault(
        "handover whose exec is refused",
        "EPERM, ENOMEM",
        "the same",
        &["handover-failed"],
        "faults_handover::what_is_refused_to_a_handover_leaves_all_as_it_was",
    ),
    fault(
        "handover without /proc",
        "a tmpfs over it",
        "the same",
        &["handover-failed"],
        "faults_handover::without_proc_nothing_is_handed_over_and_nothing_lost",
    ),
    fault(
        "handover and a signal at once",
        "TERM, HUP, CHLD to the process that executes",
        "the new one does what is asked",
        &["handover"],
        "faults_handover::a_signal_in_the_very_moment_is_heard_by_the_next",
    ),
    fault(
        "handover and a death at once",
        "SIGKILL of a worker at the exec",
        "replaced by the new one",
        &["handover", "died"],
        "faults_handover::a_worker_that_dies_in_the_very_moment_is_replaced_by_the_next",
    ),
    fault(
        "handover with clients in the queue",
        "stopped workers, 50 connections",
        "all are answered",
        &["handover"],
        "faults_handover::who_waits_in_the_queue_is_served_behind_it",
    ),
    fault(
        "handover with 500 workers",
        "500 of them",
        "the same workers go on",
        &["handover"],
        "faults_heavy::heavy_five_hundred_workers_are_handed_over",
    ),
];
