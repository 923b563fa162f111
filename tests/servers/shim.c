/* Preloaded into a master: what a kernel, a disk or an operator does once in a lifetime, when a file of
 * that name is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What such a file says; 0 if there is none. */
static long number(const char *name)
{
    char text[32] = "";
    int before = errno, fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (syscall(SYS_read, fd, text, sizeof text - 1) < 0)
            text[0] = '\0';
        close(fd);
    }
    errno = before;
    return atol(text);
}

/* Does that file say an errno? Then it is set. */
static int fails(const char *name)
{
    long n = number(name);
    if (n > 0)
        errno = (int)n;
    return n > 0;
}

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

/* There is room for no process, or no memory for one. */
pid_t fork(void)
{
    static pid_t (*real)(void);
    if (fails("shim-fork"))
        return -1;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "fork");
    return real();
}

/* An older kernel, or a filter. */
int memfd_create(const char *name, unsigned flags)
{
    if (fails("shim-memfd"))
        return -1;
    return (int)syscall(SYS_memfd_create, name, flags);
}

/* Somebody sets the clock, by so many seconds. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
    int done = (int)syscall(SYS_clock_gettime, clock, now);
    if (done == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += number("shim-clock");
    return done;
}

/* Does this environment hand our own place to another program? */
static int hands_over(char *const argv[], char *const envp[])
{
    static const char name[] = "MINICLUSTER_HANDOVER=";
    /* So the one is called that is only asked. */
    if (!argv[0] || strcmp(argv[0], "minicluster-handover") == 0)
        return 0;
    for (; *envp; envp++)
        if (strncmp(*envp, name, sizeof name - 1) == 0)
            return 1;
    return 0;
}

/* The exec of a handover is refused; or in this very moment we get a signal, or a worker dies. */
int execve(const char *path, char *const argv[], char *const envp[])
{
    if (hands_over(argv, envp)) {
        long n;
        if (fails("shim-exec"))
            return -1;
        n = number("shim-exec-signal");
        if (n > 0 && unlink("shim-exec-signal") == 0)
            kill(getpid(), (int)n);
        n = number("shim-exec-kill");
        if (n > 0 && unlink("shim-exec-kill") == 0) {
            siginfo_t how;
            kill((pid_t)n, SIGKILL);
            waitid(P_PID, (id_t)n, &how, WEXITED | WNOWAIT);
        }
    }
    return (int)syscall(SYS_execve, path, argv, envp);
}
