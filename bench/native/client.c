/* A load client for event streams: opens connections, reads them with epoll, and checks every event that arrives.

     client PORT key=value ...

   One thread. An event is checked to the byte: its number is the next one of its connection, its padding has the length and the
   content that were asked for, and at the end the count is right. The time in an event is the server's CLOCK_MONOTONIC, which
   all processes of a machine share. What went wrong first is told in words, and the exit status is 1. Otherwise a line of JSON
   is printed, whose members `bench/load.py` explains. The keys are the members of `ask` in events.h.
*/
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "events.h"

enum { INPUT = 1 << 18, MOST = 64 };

static struct connection *connections;
static long opened, opens, readies, finished, bytes;
static char input[INPUT], text[INPUT * 2 + (1 << 21)];
static int poll_fd, publisher = -1;
static ns start;
static long goal; /* events that are to be published in all */

static void close_connection(struct connection *c) {
    close(c->fd);
    c->fd = -1;
    free(c->tail);
    c->tail = NULL;
    c->tail_length = c->tail_room = 0;
    opens--;
    finished++;
    if (!c->ready) c->ready = true, readies++;
}

static void open_connection(void) {
    struct connection *c = &connections[opened];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)ask.port)};
    struct epoll_event interest = {.events = EPOLLOUT, .data.ptr = c};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *c = (struct connection){.number = (int)opened, .begun = clock_now(), .fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)};
    if (c->fd < 0) fail("no socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) fail("no connection: %s", strerror(errno));
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &interest);
    opened++;
    opens++;
}

static void send_request(struct connection *c) {
    char request[8192], *to = request;
    for (const char *from = ask.request; *from;) {
        if (!strncmp(from, "{id}", 4)) {
            to += sprintf(to, "%06d", c->number); /* of one length: the request's Content-Length counts it */
            from += 4;
        } else {
            *to++ = *from++;
        }
        if (to > request + sizeof request - 16) fail("the request is too long");
    }
    if (write(c->fd, request, (size_t)(to - request)) != to - request) fail("connection %d: not sent: %s", c->number, strerror(errno));
    c->sent = true;
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &interest);
}

/* Takes the head from the front of these bytes when it is whole; how long it was. */
static size_t read_head(struct connection *c, const char *data, size_t length) {
    const char *end = memmem(data, length, "\r\n\r\n", 4), *at = data;
    if (!end) return 0;
    if (!skip(&at, end, "HTTP/1.1 200")) wrong(c, "not the answer that was asked for", data, data + length);
    for (at = data; at < end; at++)
        if (*at == '\n' && !strncasecmp(at + 1, "transfer-encoding: chunked", 26)) c->chunked = true;
    c->in_body = true;
    return (size_t)(end + 4 - data);
}

/* Moves what is the body's of these bytes to `to`, taking the chunked coding away; how much that is. */
static size_t read_chunks(struct connection *c, const char *data, size_t length, char *to) {
    const char *at = data, *end = data + length;
    char *begin = to;
    while (at < end && !c->ended) {
        if (!c->in_chunk) { /* a size, of which a part may have been read before */
            for (; at < end && *at != '\n'; at++)
                if (*at != '\r') c->chunk = c->chunk * 16 + (*at <= '9' ? *at - '0' : (*at | 32) - 'a' + 10);
            if (at == end) break;
            at++;
            c->in_chunk = true;
            c->ended = c->chunk == 0;
            c->chunk += 2;
        } else {
            long some = end - at < c->chunk ? end - at : c->chunk;
            long data_bytes = c->chunk > 2 ? (some < c->chunk - 2 ? some : c->chunk - 2) : 0;
            memcpy(to, at, (size_t)data_bytes);
            to += data_bytes;
            at += some;
            c->chunk -= some;
            c->in_chunk = c->chunk > 0;
        }
    }
    return (size_t)(to - begin);
}

static void keep_tail(struct connection *c, const char *data, size_t length) {
    if (length > c->tail_room) {
        c->tail_room = length > (1 << 20) ? 1 << 21 : length + 256;
        if (length > c->tail_room) wrong(c, "an event without an end", data, data + length);
        char *tail = malloc(c->tail_room);
        memcpy(tail, data, length);
        free(c->tail);
        c->tail = tail;
    } else {
        memmove(c->tail, data, length);
    }
    c->tail_length = length;
}

static void read_connection(struct connection *c) {
    ssize_t got = read(c->fd, input, INPUT);
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0 && errno != ECONNRESET) fail("connection %d: %s", c->number, strerror(errno));
    now = clock_now();
    bytes += got > 0 ? got : 0;
    size_t length = c->tail_length, from = 0, fresh = got > 0 ? (size_t)got : 0;
    memcpy(text, c->tail, length);
    if (!c->in_body) {
        memcpy(text + length, input, fresh);
        length += fresh;
        size_t head = read_head(c, text, length);
        fresh = head ? length - head : 0;
        if (head) memmove(input, text + head, fresh), length = 0;
    }
    if (c->in_body && c->chunked) {
        length += read_chunks(c, input, fresh, text + length);
    } else if (c->in_body) {
        memcpy(text + length, input, fresh);
        length += fresh;
    }
    if (c->in_body && length && !c->ready) c->ready = true, readies++;
    while (c->in_body && from < length) {
        char *end = memmem(text + from, length - from, "\n\n", 2);
        if (!end) break;
        event(c, text + from, end);
        from = (size_t)(end - text) + 2;
    }
    if (c->ended || got <= 0) {
        if (ask.events && c->events != ask.events) wrong(c, "the answer ended", text, text + length);
        close_connection(c);
    } else {
        keep_tail(c, text + from, length - from);
    }
}

/* -- one event to all who watch */

static void publish(long n) {
    char body[4096], request[8192];
    int length = sprintf(body, "%s{\"n\":%ld,\"t\":%lu,\"pad\":\"%s\"}%s", ask.prefix, n, (unsigned long)clock_now(), pad, ask.suffix);
    int all = sprintf(request, "%sContent-Length: %d\r\n\r\n%s", ask.publish, length, body);
    if (write(publisher, request, (size_t)all) != all) fail("not published: %s", strerror(errno));
}

/* A new connection each time: servers close one that has been idle. */
static void connect_publisher(void) {
    if (publisher >= 0) close(publisher);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)ask.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    publisher = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(publisher, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    setsockopt(publisher, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = 10}, sizeof(struct timeval));
    if (connect(publisher, (struct sockaddr *)&address, sizeof address)) fail("no connection to publish by: %s", strerror(errno));
}

/* Takes the answer to one that was published. */
static void published(void) {
    char answer[4096];
    ssize_t length = 0, got;
    do { /* ends with a Content-Length's worth, the last chunk, or an empty body */
        if ((got = read(publisher, answer + length, sizeof answer - 1 - (size_t)length)) <= 0) fail("no answer to a publisher");
        answer[length += got] = 0;
        char *end = strstr(answer, "\r\n\r\n"), *counted = strcasestr(answer, "content-length: ");
        if (strncmp(answer, "HTTP/1.1 2", 10)) fail("not published: %s", answer);
        if (end && counted && answer + length - end - 4 >= atol(counted + 16)) return;
        if (end && !counted && (!strcasestr(answer, "chunked") || strstr(end, "0\r\n\r\n"))) return;
    } while (true);
}

/* -- all of it */

/* Takes a line of stdin. "count": how many events have arrived; "mark": the same, and latencies begin anew; "publish N". */
static bool told(void) {
    char line[64] = "";
    if (read(STDIN_FILENO, line, sizeof line - 1) <= 0) return false;
    if (*line == 'm') latencies.count = 0;
    if (*line == 'p') connect_publisher(), goal += atol(line + 7), start = clock_now();
    if (*line != 'p') printf("%ld\n", received), fflush(stdout);
    return true;
}

static void parse(int count, char **words) {
    ask.port = atoi(words[1]);
    for (int i = 2; i < count; i++) {
        char *key = words[i], *value = strchr(key, '=');
        if (!value) fail("not key=value: %s", key);
        *value++ = 0;
#define IS(name) (!strcmp(key, #name))
        if IS (request) ask.request = value;
        else if IS (kind) ask.kind = value;
        else if IS (total) ask.total = atol(value);
        else if IS (at_once) ask.at_once = atol(value);
        else if IS (opening) ask.opening = atol(value);
        else if IS (events) ask.events = atol(value);
        else if IS (pad) ask.pad = atol(value);
        else if IS (spread) ask.spread = atof(value);
        else if IS (stall) ask.stall = atof(value);
        else if IS (limit) ask.limit = atof(value);
        else if IS (publish) ask.publish = value;
        else if IS (prefix) ask.prefix = value;
        else if IS (suffix) ask.suffix = value;
        else if IS (leave) ask.leave = atol(value);
        else if IS (led) ask.led = atoi(value);
        else fail("no such key: %s", key);
    }
    if (!ask.at_once) ask.at_once = ask.total;
    if (!ask.opening) ask.opening = ask.total;
    pad_length = ask.pad;
    pad = memset(calloc(1, (size_t)pad_length + 1), 'x', (size_t)pad_length);
}

/* What is done once all are ready; whether there is nothing more to do. */
static bool lead(void) {
    static bool all_ready;
    static long sent, given, left; /* given: what was sent, has arrived at all, and is answered */
    static ns due;
    if (readies < ask.total) return false;
    if (!all_ready) {
        all_ready = true;
        if (ask.led) printf("ready\n"), fflush(stdout);
        due = clock_now() + 1000000000; /* those who stay have got into their stride */
    }
    while (ask.publish && given < goal && received == sent * ask.total) {
        if (sent > given) published(), given++;
        if (sent < goal) publish(sent++);
        if (given == goal) printf("%.6f\n", (double)(clock_now() - start) / 1e9), fflush(stdout);
    }
    while (ask.leave && clock_now() > due) {
        if (left == ask.leave) return true;
        printf("left %d %lu\n", connections[left].number, (unsigned long)clock_now());
        close_connection(&connections[left++]);
        due += left == ask.leave ? 500000000 : 10000000;
    }
    return false;
}

int main(int count, char **words) {
    struct epoll_event events[MOST];
    struct rlimit files;
    struct rusage used;
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    parse(count, words);
    connections = calloc((size_t)ask.total, sizeof *connections);
    poll_fd = epoll_create1(0);
    start = clock_now();
    ns deadline = start + (ns)(ask.limit * 1e9), first = start;
    if (ask.led) epoll_ctl(poll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &(struct epoll_event){.events = EPOLLIN});
    bool over = false;
    while (!over && (finished < ask.total || ask.publish)) {
        while (opened < ask.total && opens < ask.at_once && opened - readies < ask.opening &&
               (double)(clock_now() - first) >= ask.spread * 1e9 * (double)opened / (double)ask.total)
            open_connection();
        int ready = epoll_wait(poll_fd, events, MOST, (opened < ask.total && ask.spread > 0) || ask.leave ? 1 : 100);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) over |= !told();
            else if (c->fd >= 0 && !c->sent) send_request(c);
            else if (c->fd >= 0) read_connection(c);
        }
        over |= lead() || clock_now() > deadline;
    }
    getrusage(RUSAGE_SELF, &used);
    double seconds = (double)(clock_now() - start) / 1e9;
    printf("{\"seconds\": %.6f, \"events\": %ld, \"bytes\": %ld, \"connections\": %ld, \"finished\": %ld, \"stalled\": %ld, ",
           seconds, received, bytes, opened, finished, stalls);
    print_quantiles("first", &firsts);
    print_quantiles("latency", &latencies);
    printf("\"cpu\": %.6f}\n", (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
}
