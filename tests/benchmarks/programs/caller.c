/* caller IP:PORT...: connects to each in turn; its exit code is the number that failed. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words) {
  int failed = 0;
  for (int i = 1; i < count; i++) {
    char *colon = strchr(words[i], ':');
    if (!colon) return 255;
    *colon = 0;
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(atoi(colon + 1))};
    inet_pton(AF_INET, words[i], &peer.sin_addr);
    *colon = ':';
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    failed += connect(fd, (struct sockaddr *)&peer, sizeof peer) != 0;
    close(fd);
  }
  return failed;
}
