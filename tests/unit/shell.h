/* A shell's commands in unit tests that need a tree of files. */
#ifndef SM_TEST_SHELL_H
#define SM_TEST_SHELL_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Runs it; the test fails where it does. */
__attribute__((format(printf, 1, 2))) static inline void sh(const char *format, ...)
{
    char command[1024];
    va_list ap;
    va_start(ap, format);
    vsnprintf(command, sizeof(command), format, ap);
    va_end(ap);
    assert_int_equal(system(command), 0);
}

#endif
