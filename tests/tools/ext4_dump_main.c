/* ext4-dump IMAGE: see ext4_dump.h. */
#include "ext4_dump.h"

int main(int argc, char **argv)
{
    return argc == 2 && ext4_dump(argv[1], stdout) == 0 ? 0 : 1;
}
