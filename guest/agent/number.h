/* Numbers as text, without what stdio brings into the agent. */
#ifndef SM_AGENT_NUMBER_H
#define SM_AGENT_NUMBER_H

#include <stdint.h>

/* Writes the digits in front of `end`, 20 at most, and returns where they begin. */
static inline char *number_before(char *end, uint64_t number)
{
    do
        *--end = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    return end;
}

#endif
