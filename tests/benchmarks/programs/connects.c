/* connects COUNT PORT: connects to a closed port of 127.0.0.1; prints nanoseconds for one connect, without socket and close. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int count, char **words) {
  if (count != 3) return 2;
  long turns = atol(words[1]);
  struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2]))};
  peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  double spent = 0;
  for (long i = 0; i < turns; i++) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    double begin = now();
    int result = connect(fd, (struct sockaddr *)&peer, sizeof peer);
    spent += now() - begin;
    if (fd < 0 || result == 0 || errno != ECONNREFUSED) return 1;
    close(fd);
  }
  printf("%.1f\n", spent / turns);
  return 0;
}
