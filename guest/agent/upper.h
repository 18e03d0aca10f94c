/* A directory of the overlay's upper layer; see upper.c. The functions return 0 or an errno
 * value. */
#ifndef SM_AGENT_UPPER_H
#define SM_AGENT_UPPER_H

/* Longest path: little memory is touched so, each page of which costs a fault. */
#define UPPER_PATH 1024

struct upper_dir {
    const char *lower, *upper; /* where the layers are mounted */
    char real[UPPER_PATH];     /* the directory's path in both */
};

/* Makes the directory that `path` (below UPPER_PATH) leads to in the image, and those on the way;
 * *fd is for what is to be put there. ENOTDIR, ELOOP: the image has something else there. */
int upper_dir_make(struct upper_dir *d, const char *path, int *fd);
/* When all is there. */
int upper_dir_finish(const struct upper_dir *d);

#endif
