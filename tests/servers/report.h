/* What threaded.c tells: events on a descriptor, itself as it was born, its sockets. */
#ifndef REPORT_H
#define REPORT_H

#include <stdio.h>

/* Opens $SAY_FD or the file $SAY. */
void say_open(void);

/* Writes "EVENT PID" or, if number >= 0, "EVENT PID NUMBER" in one write. Safe in signal handlers. */
void say(const char *event, long number);

/* The descriptor in use, or -1. */
int say_fd(void);

/* Remembers how this process was born; call first in main. */
void remember_birth(int argc, char **argv);

/* Writes what remember_birth saw: one item a line, its kind first. */
void report_birth(FILE *to);

/* Writes one socket's options: one a line, `who` first. */
void report_socket(FILE *to, const char *who, int fd);

/* Writes 200 KiB of numbered lines that begin with `word` to stderr. */
void flood_stderr(const char *word);

#endif
