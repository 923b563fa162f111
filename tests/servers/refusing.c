/* refusing RULE[,RULE...] COMMAND [ARG...]: executes COMMAND where something is refused, as the profile
 * of a container or the directives of a unit refuse it. A RULE is NAME or NAME=ERRNO (a number; else it
 * is EPERM) or NAME=kill, for a filter that kills whoever tries it.
 *
 * Docker's own profile, as far as it matters here, is `docker`: what its default refuses to a container
 * without added capabilities. (Written down from what is known of it: on kernels from 4.8 it lets ptrace
 * and process_vm_readv pass, and older ones of it do not; pidfd_getfd goes with CAP_SYS_PTRACE.) */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ALWAYS, EQUAL, ANY_OF };

/* One argument that decides: of its low half these bits are that, or any of these bits is there. */
struct condition {
    int kind;
    int arg;
    unsigned mask, value;
};

#define IS(arg, value) {EQUAL, arg, ~0u, value}

static const struct rule {
    const char *name;
    long call;
    struct condition when[2];
} rules[] = {
    {"pidfd_getfd", SYS_pidfd_getfd, {{0}}},
    {"pidfd_open", SYS_pidfd_open, {{0}}},
    {"pidfd_send_signal", SYS_pidfd_send_signal, {{0}}},
    {"process_vm_readv", SYS_process_vm_readv, {{0}}},
    {"ptrace", SYS_ptrace, {{0}}},
    {"seccomp", SYS_seccomp, {{0}}},
    {"listener", SYS_seccomp, {{ANY_OF, 1, 0, SECCOMP_FILTER_FLAG_NEW_LISTENER}}},
    {"no_new_privs", SYS_prctl, {IS(0, PR_SET_NO_NEW_PRIVS)}},
    {"subreaper", SYS_prctl, {IS(0, PR_SET_CHILD_SUBREAPER)}},
    /* As of /proc/PID/fd by a security module; but not O_TMPFILE, which has that flag, too. */
    {"opendir", SYS_openat, {{EQUAL, 2, O_TMPFILE | O_DIRECTORY, O_DIRECTORY}}},
    {"pdeathsig", SYS_prctl, {IS(0, PR_SET_PDEATHSIG)}},
    {"netlink", SYS_socket, {IS(0, AF_NETLINK)}},
    {"unix_datagram", SYS_socket, {IS(0, AF_UNIX), {EQUAL, 1, 0xf, SOCK_DGRAM}}},
    {"steering", SYS_setsockopt, {IS(1, SOL_SOCKET), IS(2, SO_ATTACH_REUSEPORT_CBPF)}},
    {"reuseport", SYS_setsockopt, {IS(1, SOL_SOCKET), IS(2, SO_REUSEPORT)}},
    {"filter", SYS_setsockopt, {IS(1, SOL_SOCKET), IS(2, SO_ATTACH_FILTER)}},
    {"membership", SYS_setsockopt, {IS(1, 270), IS(2, 1)}},
    {"setuid", SYS_setresuid, {{0}}},
    {"setpriority", SYS_setpriority, {{0}}},
    {"setlimit", SYS_prlimit64, {IS(1, RLIMIT_CORE)}},
    {"affinity", SYS_sched_setaffinity, {{0}}},
};

/* Rules that go together. */
static const struct {
    const char *name, *rules;
} profiles[] = {
    {"docker", "pidfd_getfd"},
    {"docker-old", "pidfd_getfd,process_vm_readv,ptrace"},
    {"gvisor", "listener=22,pidfd_getfd=38"},
};

static struct sock_filter code[256];
static unsigned short length;

static void put(struct sock_filter one)
{
    if (length == sizeof code / sizeof *code)
        exit(64);
    code[length++] = one;
}

static void load(size_t at)
{
    put((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)at));
}

/* Each test leaves the block where it fails: how far that is, is filled in at its end. */
static void block(const struct rule *r, unsigned action)
{
    unsigned short leave[3], tests = 0;
    load(offsetof(struct seccomp_data, nr));
    leave[tests++] = length;
    put((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)r->call, 0, 0));
    for (int i = 0; i < 2; i++) {
        const struct condition *c = &r->when[i];
        if (c->kind == ALWAYS)
            continue;
        load(offsetof(struct seccomp_data, args) + 8 * (size_t)c->arg);
        if (c->kind == EQUAL && c->mask != ~0u)
            put((struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, c->mask));
        leave[tests++] = length;
        put((struct sock_filter)BPF_JUMP(
            BPF_JMP | BPF_K | (c->kind == EQUAL ? BPF_JEQ : BPF_JSET), c->value, 0, 0));
    }
    put((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
    while (tests-- > 0)
        code[leave[tests]].jf = (unsigned char)(length - leave[tests] - 1);
}

static void refuse(const char *words)
{
    char *all = strdup(words), *rest = all, *word;
    while ((word = strsep(&rest, ",")) != NULL) {
        char *how = strchr(word, '=');
        unsigned action = SECCOMP_RET_ERRNO | EPERM;
        size_t n, known = sizeof rules / sizeof *rules;
        if (how) {
            *how++ = '\0';
            action = strcmp(how, "kill") == 0 ? SECCOMP_RET_KILL_PROCESS
                                              : SECCOMP_RET_ERRNO | (unsigned)atoi(how);
        }
        for (n = 0; n < sizeof profiles / sizeof *profiles; n++)
            if (strcmp(profiles[n].name, word) == 0)
                break;
        if (n < sizeof profiles / sizeof *profiles) {
            refuse(profiles[n].rules);
            continue;
        }
        for (n = 0; n < known && strcmp(rules[n].name, word) != 0;)
            n++;
        if (n == known) {
            fprintf(stderr, "refusing: %s is not in the list\n", word);
            exit(64);
        }
        block(&rules[n], action);
    }
    free(all);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 64;
    refuse(argv[1]);
    put((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    struct sock_fprog filter = {length, code};
    /* With CAP_SYS_ADMIN it takes no no_new_privs, and whoever is tested may have to set that himself. */
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) != 0 &&
        (errno != EACCES || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
         syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) != 0)) {
        perror("refusing: seccomp");
        return 71;
    }
    execvp(argv[2], argv + 2);
    perror(argv[2]);
    return 127;
}
