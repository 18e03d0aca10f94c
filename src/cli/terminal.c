/* The host's terminal. See terminal.h. The state is global, as the terminal is the process's. */
#include "cli/terminal.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct termios saved;
static int raw_fd = -1;

static bool set_raw(int fd)
{
    struct termios raw = saved;
    cfmakeraw(&raw);
    return tcsetattr(fd, TCSADRAIN, &raw) == 0;
}

bool cli_terminal_raw(int fd)
{
    bool ok = false;
    pthread_mutex_lock(&lock);
    if (raw_fd < 0 && tcgetattr(fd, &saved) == 0 && set_raw(fd)) {
        raw_fd = fd;
        ok = atexit(cli_terminal_restore) == 0;
    }
    pthread_mutex_unlock(&lock);
    return ok;
}

void cli_terminal_restore(void)
{
    pthread_mutex_lock(&lock);
    if (raw_fd >= 0) {
        tcsetattr(raw_fd, TCSADRAIN, &saved);
        raw_fd = -1;
    }
    pthread_mutex_unlock(&lock);
}

void cli_terminal_restore_now(void)
{
    if (raw_fd >= 0)
        tcsetattr(raw_fd, TCSANOW, &saved);
}

void cli_terminal_continue(void)
{
    pthread_mutex_lock(&lock);
    if (raw_fd >= 0)
        set_raw(raw_fd);
    pthread_mutex_unlock(&lock);
}

bool cli_terminal_size(uint16_t *rows, uint16_t *columns)
{
    struct winsize size;
    for (int fd = 0; fd <= 2; fd++) {
        if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col) {
            *rows = size.ws_row;
            *columns = size.ws_col;
            return true;
        }
    }
    return false;
}
