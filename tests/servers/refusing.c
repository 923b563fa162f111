/* refusing CALL COMMAND [ARG...]: executes COMMAND where that system call is refused (EPERM), as the
 * profile of a container refuses it. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
    const char *name;
    long number;
} calls[] = {
    {"pidfd_getfd", SYS_pidfd_getfd},
    {"pidfd_open", SYS_pidfd_open},
    {"process_vm_readv", SYS_process_vm_readv},
    {"ptrace", SYS_ptrace},
};

int main(int argc, char **argv)
{
    size_t n = 0, all = sizeof calls / sizeof *calls;
    if (argc < 3)
        return 64;
    while (n < all && strcmp(calls[n].name, argv[1]) != 0)
        n++;
    if (n == all) {
        fprintf(stderr, "refusing: %s is not in the list\n", argv[1]);
        return 64;
    }
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[n].number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) != 0) {
        perror("refusing: seccomp");
        return 71;
    }
    execvp(argv[2], argv + 2);
    perror(argv[2]);
    return 127;
}
