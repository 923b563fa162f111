/* Preloaded into a master: what a kernel, a disk or an operator does once in a lifetime, when a file of
 * that name is there. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The medium fails under a line of the log, once. */
ssize_t write(int fd, const void *bytes, size_t size)
{
    const char word[] = "signalled";
    if (memmem(bytes, size, word, sizeof word - 1) && unlink("shim-eio") == 0) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_write, fd, bytes, size);
}

/* The CPUs are others than they were when the master looked. */
int sched_setaffinity(pid_t pid, size_t size, const cpu_set_t *set)
{
    if (access("shim-cpu", F_OK) == 0) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_sched_setaffinity, pid, size, set);
}

/* The server of a file has gone: its lock cannot be given back. */
int flock(int fd, int how)
{
    if ((how & LOCK_UN) && access("shim-unlock", F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_flock, fd, how);
}

/* A child is killed on its way to exec. */
int chdir(const char *path)
{
    if (access("shim-kill", F_OK) == 0)
        kill(getpid(), SIGKILL);
    return (int)syscall(SYS_chdir, path);
}
