/*
 * Two programs in one, for bench/respawn.py.
 *
 *   stamp FILE          a worker: appends "PID NANOSECONDS" (CLOCK_MONOTONIC, the first thing in
 *                       main) to FILE, listens on $PORT if that is set, and sleeps.
 *   stamp FILE bare     the least that a manager can do: keeps one such worker, waiting in
 *                       waitpid, forking and executing again at once.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void worker(const char *file)
{
	struct timespec ts;
	char line[64];
	const char *port = getenv("PORT");

	clock_gettime(CLOCK_MONOTONIC, &ts);
	int n = snprintf(line, sizeof line, "%d %lld\n", (int)getpid(),
			 ts.tv_sec * 1000000000LL + ts.tv_nsec);
	int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, n) != n) {
		perror(file);
		exit(1);
	}
	if (port) {
		struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
		int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, 128)) {
			perror("bind");
			exit(1);
		}
	}
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	if (argc == 2)
		worker(argv[1]);
	for (;;) {
		pid_t pid = fork();
		if (pid < 0)
			return 1;
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			execl("/proc/self/exe", argv[0], argv[1], (char *)NULL);
			_exit(127);
		}
		waitpid(pid, NULL, 0);
	}
}
