/* Resolves names by getaddrinfo(3): an IPv4 address a line. */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
        char text[INET_ADDRSTRLEN];
        int error = getaddrinfo(argv[i], NULL, &hints, &found);
        if (error) {
            puts(gai_strerror(error));
            return 1;
        }
        struct sockaddr_in *address = (struct sockaddr_in *)found->ai_addr;
        puts(inet_ntop(AF_INET, &address->sin_addr, text, sizeof text));
        freeaddrinfo(found);
    }
    return 0;
}
