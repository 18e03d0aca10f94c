/*
 * What a directory of the image holds, copied into the file system that is mounted over it, as
 * container engines do for a tmpfs. It is hostile: how much there is, and how deep. The room is
 * bounded by the tmpfs; the time, in which the agent waits for the command's start, is here. A
 * child that shares the agent's memory may call it; what it keeps is static, as its stack is small.
 */
#ifndef SM_AGENT_COPY_H
#define SM_AGENT_COPY_H

#include <stdint.h>

/* Of both descriptors, which stay open; `to` is empty, and keeps its own mode and owner. What is in
 * it keeps theirs, files and directories their times and attributes, too; names of one file become
 * files. 0; or -1 and errno: ETIMEDOUT when it is not done at `end_ns` of the monotonic clock. */
int copy_within(int from, int to, uint64_t end_ns);

#endif
