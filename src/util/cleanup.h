/*
 * Ownership by attribute: an owning local variable is declared with auto_*, and what leaves the
 * function is taken out of it with a type-safe steal. Every destructor accepts the empty value.
 */
#ifndef SM_UTIL_CLEANUP_H
#define SM_UTIL_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* unused: a variable may be there only to own. */
#define SM_CLEANUP(f) __attribute__((unused, cleanup(f)))

/* Makes `static inline void name_cleanup(type *p)` for a destructor that takes the value. */
#define SM_DEFINE_CLEANUP(type, destroy)                                                           \
    static inline void destroy##_cleanup(type *p)                                                  \
    {                                                                                              \
        if (*p)                                                                                    \
            destroy(*p);                                                                           \
    }

static inline void sm_free_cleanup(void *p)
{
    free(*(void **)p);
}

/* close(2) that keeps errno, so that it can run between a failure and its report. */
static inline void sm_close(int fd)
{
    if (fd >= 0) {
        int saved = errno;
        close(fd);
        errno = saved;
    }
}

static inline void sm_close_cleanup(int *fd)
{
    sm_close(*fd);
}

SM_DEFINE_CLEANUP(FILE *, fclose)
SM_DEFINE_CLEANUP(DIR *, closedir)

#define auto_free SM_CLEANUP(sm_free_cleanup)
#define auto_fd   SM_CLEANUP(sm_close_cleanup) int
#define auto_file SM_CLEANUP(fclose_cleanup) FILE *
#define auto_dir  SM_CLEANUP(closedir_cleanup) DIR *

/* Takes the pointer out of an owning variable: the variable is NULL afterwards. */
#define sm_steal_ptr(pp)                                                                           \
    __extension__({                                                                                \
        __typeof__(*(pp)) stolen_ = *(pp);                                                         \
        *(pp) = NULL;                                                                              \
        stolen_;                                                                                   \
    })

static inline int sm_steal_fd(int *fd)
{
    int stolen = *fd;
    *fd = -1;
    return stolen;
}

#endif
