/* `mkdir -p`: see directory.h. A child that shares the agent's memory may call it. */
#include "directory.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "wire/wire.h"

int directory_make(const char *path)
{
    char made[SM_WIRE_MAX_PATH + 1];
    size_t len = strlen(path);
    if (len >= sizeof(made)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(made, path, len + 1);
    for (char *p = made + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        if (mkdir(made, 0755) != 0 && errno != EEXIST)
            return -1;
        *p = '/';
    }
    return mkdir(made, 0755) != 0 && errno != EEXIST ? -1 : 0;
}
