/* Output-only 16550 subset and the console log. See serial.h. */
#include "devices/serial.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "util/error.h"

#define DEFAULT_LOG_SIZE ((size_t)256 * 1024)
#define LINE_MAX_BYTES   1024

enum { REG_THR = 0, REG_IER = 1, REG_IIR = 2, REG_LCR = 3, REG_LSR = 5, REG_MSR = 6, REG_SCR = 7 };

#define LCR_DLAB          0x80 /* registers 0 and 1 are the baud rate divisor */
#define LSR_IDLE          0x60 /* transmitter and holding register empty */
#define IIR_NOTHING       0x01
#define MSR_CARRIER_READY 0xb0

struct sm_serial {
    sm_serial_line_fn *on_line;
    void *arg;
    pthread_mutex_t lock;
    uint8_t divisor[2], ier, lcr, scratch;
    size_t size, filled, next; /* of the ring */
    size_t line_len;
    char line[LINE_MAX_BYTES];
    char log[];
};

int sm_serial_create(
    struct sm_serial **out, size_t log_size, sm_serial_line_fn *on_line, void *arg, sm_error *err)
{
    if (log_size == 0)
        log_size = DEFAULT_LOG_SIZE;
    struct sm_serial *s = malloc(sizeof(*s) + log_size);
    if (!s)
        return sm_error_errno(err, ENOMEM, "cannot make the console log");
    memset(s, 0, sizeof(*s)); /* not the log: most of it is never touched */
    s->size = log_size;
    s->on_line = on_line;
    s->arg = arg;
    pthread_mutex_init(&s->lock, NULL);
    *out = s;
    return 0;
}

void sm_serial_destroy(struct sm_serial *s)
{
    if (!s)
        return;
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* Returns true when `line` (LINE_MAX_BYTES) has got a complete line. */
static bool put(struct sm_serial *s, char c, char *line)
{
    if (c == '\0') /* whoever reads the log as a string would stop there */
        return false;
    s->log[s->next] = c;
    s->next = (s->next + 1) % s->size;
    if (s->filled < s->size)
        s->filled++;
    if (c == '\n') {
        memcpy(line, s->line, s->line_len);
        line[s->line_len] = '\0';
        s->line_len = 0;
        return true;
    }
    if (c != '\r' && s->line_len < LINE_MAX_BYTES - 1)
        s->line[s->line_len++] = c;
    return false;
}

static void serial_write(void *dev, uint64_t offset, const void *data, unsigned len)
{
    struct sm_serial *s = dev;
    uint8_t value = *(const uint8_t *)data;
    char line[LINE_MAX_BYTES];
    bool complete = false;
    pthread_mutex_lock(&s->lock);
    switch (offset) {
    case REG_THR:
        if (s->lcr & LCR_DLAB)
            s->divisor[0] = value;
        else
            complete = put(s, (char)value, line);
        break;
    case REG_IER:
        if (s->lcr & LCR_DLAB)
            s->divisor[1] = value;
        else
            s->ier = value & 0xf;
        break;
    case REG_LCR:
        s->lcr = value;
        break;
    case REG_SCR:
        s->scratch = value;
        break;
    default: /* FIFO and modem control mean nothing here */
        break;
    }
    pthread_mutex_unlock(&s->lock);
    if (complete && s->on_line)
        s->on_line(s->arg, line);
}

static void serial_read(void *dev, uint64_t offset, void *data, unsigned len)
{
    struct sm_serial *s = dev;
    uint8_t value = 0;
    pthread_mutex_lock(&s->lock);
    switch (offset) {
    case REG_THR:
        value = s->lcr & LCR_DLAB ? s->divisor[0] : 0;
        break;
    case REG_IER:
        value = s->lcr & LCR_DLAB ? s->divisor[1] : s->ier;
        break;
    case REG_IIR:
        value = IIR_NOTHING;
        break;
    case REG_LCR:
        value = s->lcr;
        break;
    case REG_LSR:
        value = LSR_IDLE;
        break;
    case REG_MSR:
        value = MSR_CARRIER_READY;
        break;
    case REG_SCR:
        value = s->scratch;
        break;
    default:
        break;
    }
    pthread_mutex_unlock(&s->lock);
    *(uint8_t *)data = value;
}

const struct sm_bus_ops sm_serial_ops = {.read = serial_read, .write = serial_write};

size_t sm_serial_tail(struct sm_serial *s, char *buf, size_t size)
{
    pthread_mutex_lock(&s->lock);
    size_t filled = s->filled;
    if (size > 0) {
        size_t n = SM_MIN(filled, size - 1);
        size_t from = (s->next + s->size - n) % s->size;
        size_t first = SM_MIN(n, s->size - from);
        memcpy(buf, s->log + from, first);
        memcpy(buf + first, s->log, n - first);
        buf[n] = '\0';
    }
    pthread_mutex_unlock(&s->lock);
    return filled;
}

bool sm_serial_line_is_panic(const char *line)
{
    /* After an optional time stamp "[    1.234567] " and nothing else. */
    if (*line == '[') {
        const char *end = strchr(line, ']');
        if (!end)
            return false;
        line = end + 1;
        while (*line == ' ')
            line++;
    }
    return strncmp(line, "Kernel panic - not syncing", 26) == 0;
}
