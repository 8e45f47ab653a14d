/* Opens a file once, reads it, and prints how long the open took, in microseconds: reader FILE. */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **words)
{
    struct timespec before, after;
    char content[64];
    if (count < 2)
        return 2;
    clock_gettime(CLOCK_MONOTONIC, &before);
    int descriptor = open(words[1], O_RDONLY);
    clock_gettime(CLOCK_MONOTONIC, &after);
    if (descriptor < 0 || read(descriptor, content, sizeof content) < 0)
        return 1;
    printf("%ld\n", (after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000);
    return 0;
}
