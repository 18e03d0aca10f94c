/* `mkdir -p`, and `rmdir` of trees. */
#ifndef SM_AGENT_DIRECTORY_H
#define SM_AGENT_DIRECTORY_H

/* Makes the directory of this absolute path and what is missing above it, mode 0755. 0, or -1 and
 * errno. */
int directory_make(const char *path);

/* Removes the directories in this one, however deep; files are no obstacle where the kernel makes
 * them, in cgroups. 0, or -1 and errno. */
int directory_empty(int fd);

#endif
