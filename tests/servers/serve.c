/* Answers HTTP requests, a thread per connection, kept alive. */
#define _GNU_SOURCE
#include "serve.h"

#include "report.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STACK = 256 * 1024 };

int report_env, report_opts;

/* Guarded by `lock`: requests under way, connections, whether each answer is to be the last of its. */
static int busy, open_connections, closing;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER;

void die(const char *what)
{
    fprintf(stderr, "threaded: %s: %s\n", what, strerror(errno));
    exit(1);
}

void spawn_thread(void *(*run)(void *), void *arg)
{
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int error = pthread_create(&thread, &attr, run, arg);
    pthread_attr_destroy(&attr);
    if (error) {
        errno = error;
        die("pthread_create");
    }
}

static int send_all(int conn, const char *data, size_t len, int flags)
{
    while (len > 0) {
        ssize_t n = send(conn, data, len, MSG_NOSIGNAL | flags);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        data += n;
        len -= (size_t)n;
    }
    return 1;
}

static void write_body(FILE *to, const char *path, int conn, int listener)
{
    const char *slot = getenv("WORKER_ID");
    if (report_env && strcmp(path, "/env") == 0) {
        report_birth(to);
    } else if (report_opts && strcmp(path, "/opts") == 0) {
        report_socket(to, "listener", listener);
        report_socket(to, "accepted", conn);
    } else {
        fprintf(to, "PID %d SLOT %s\n", getpid(), slot ? slot : "-");
    }
}

static int answer(int conn, int listener, const char *path, int is_head, int keep)
{
    char *body = NULL, head[200];
    size_t len = 0;
    FILE *to = open_memstream(&body, &len);
    if (!to)
        return 0;
    write_body(to, path, conn, listener);
    fclose(to);
    int n = snprintf(head, sizeof head,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: %s\r\n\r\n",
        len, keep ? "keep-alive" : "close");
    /* More follows at once: the two leave as one, and no client's delayed ACK is waited for. */
    int ok = send_all(conn, head, (size_t)n, is_head ? 0 : MSG_MORE) && (is_head || send_all(conn, body, len, 0));
    free(body);
    return ok && keep;
}

/* The value of a header in a NUL-terminated head, or NULL. */
static const char *header(const char *head, const char *name)
{
    size_t len = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, len) == 0 && line[len] == ':')
            return line + len + 1 + strspn(line + len + 1, " \t");
    }
    return NULL;
}

static int one_request(int conn, int listener, char *head, long *body_left)
{
    char path[256] = "", method[16] = "";
    int minor = 0;
    if (sscanf(head, "%15s %255s HTTP/1.%d", method, path, &minor) < 2)
        return 0;
    const char *length = header(head, "Content-Length"), *wish = header(head, "Connection");
    int keep = minor > 0;
    if (wish)
        keep = strncasecmp(wish, "close", 5) != 0 && (keep || strncasecmp(wish, "keep-alive", 10) == 0);
    *body_left = length ? strtol(length, NULL, 10) : 0;
    pthread_mutex_lock(&lock);
    busy++;
    keep = keep && !closing;
    pthread_mutex_unlock(&lock);
    say("request", -1);
    int ms = 0;
    if (sscanf(path, "/slow?ms=%d", &ms) == 1)
        poll(NULL, 0, ms);
    int on = answer(conn, listener, path, strcmp(method, "HEAD") == 0, keep);
    pthread_mutex_lock(&lock);
    if (--busy == 0)
        pthread_cond_broadcast(&idle);
    pthread_mutex_unlock(&lock);
    return on;
}

struct conn {
    int fd, listener;
};

static void *connection(void *arg)
{
    struct conn c = *(struct conn *)arg;
    char buf[16385];
    size_t len = 0;
    long body_left = 0;
    free(arg);
    for (;;) {
        char *end;
        buf[len] = 0;
        if (body_left == 0 && (end = strstr(buf, "\r\n\r\n"))) {
            end[2] = 0;
            if (!one_request(c.fd, c.listener, buf, &body_left))
                break;
            len -= (size_t)(end + 4 - buf);
            memmove(buf, end + 4, len);
            continue;
        }
        if (body_left > 0 && len > 0) {
            size_t skip = (size_t)body_left < len ? (size_t)body_left : len;
            body_left -= (long)skip;
            len -= skip;
            memmove(buf, buf + skip, len);
            continue;
        }
        if (len == sizeof buf - 1)
            break;
        ssize_t n = recv(c.fd, buf + len, sizeof buf - 1 - len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    close(c.fd);
    pthread_mutex_lock(&lock);
    if (--open_connections == 0)
        pthread_cond_broadcast(&idle);
    pthread_mutex_unlock(&lock);
    return NULL;
}

void serve(int fd, int listener)
{
    struct conn *c = malloc(sizeof *c);
    if (!c)
        die("malloc");
    c->fd = fd;
    c->listener = listener;
    pthread_mutex_lock(&lock);
    open_connections++;
    pthread_mutex_unlock(&lock);
    spawn_thread(connection, c);
}

void finish_requests(void)
{
    pthread_mutex_lock(&lock);
    while (busy > 0)
        pthread_cond_wait(&idle, &lock);
}

void finish_connections(int ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&lock);
    closing = 1;
    say("polite", -1);
    while (open_connections > 0 && pthread_cond_timedwait(&idle, &lock, &until) == 0)
        ;
    while (busy > 0)
        pthread_cond_wait(&idle, &lock);
}
