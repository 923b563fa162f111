/* Answers HTTP requests, a thread per connection, kept alive. */
#ifndef SERVE_H
#define SERVE_H

/* Answer /env and /opts with reports? */
extern int report_env, report_opts;

/* Serves this connection of that listener in a thread of its own, and closes it. */
void serve(int fd, int listener);

/* Returns when no request is under way; from then on none begins. */
void finish_requests(void);

/* From now on each answer says `Connection: close`. Returns when no connection is left or ms have passed,
 * and no request is under way; from then on none begins. Says "polite" when it is so. */
void finish_connections(int ms);

/* Starts a detached thread. */
void spawn_thread(void *(*run)(void *), void *arg);

/* Says what failed and errno, and exits 1. */
_Noreturn void die(const char *what);

#endif
