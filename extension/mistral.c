// The DuckDB extension `mistral`: it lets the mistral functions run in any DuckDB process, without Python in it.
//
// It registers four scalar functions. Each call, a vector of rows, goes as one message to a helper process, which is
// Python and decides everything (duckdb_mistral/shell/helper.py); its answer is the result. The two talk over socket
// pairs, so there is no address that anyone else could connect to.
//
// Only DuckDB's stable C API v1.2.0 is used, so one file loads into that version and all later ones.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __APPLE__
#include <crt_externs.h>
#define environ (*_NSGetEnviron())
#else
extern char **environ;
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 // macOS has SO_NOSIGPIPE instead
#endif

// ---------------------------------------------------------------------------------------------------------------------
// DuckDB's C API: a struct of function pointers. The place of a function in it is its name, and never changes.
// ---------------------------------------------------------------------------------------------------------------------

typedef uint64_t idx_t;
typedef struct Database *Database;
typedef struct Connection *Connection;
typedef struct Info *Info;
typedef struct LogicalType *LogicalType;
typedef struct Chunk *Chunk;
typedef struct Vector *Vector;
typedef struct Scalar *Scalar;
typedef void (*Call)(Info, Chunk, Vector);
enum { TINYINT = 2, BIGINT = 5, UBIGINT = 9, VARCHAR = 17 }; // of duckdb_type

// A text of up to 12 bytes stands in the vector itself.
typedef union {
	struct {
		uint32_t length;
		char inlined[12];
	};
	struct {
		uint32_t same_length;
		char prefix[4];
		const char *pointer;
	};
} String;
_Static_assert(sizeof(String) == 16, "as DuckDB has it");

typedef struct {
	void (*set_error)(Info, const char *error);
	Database *(*get_database)(Info);
	const void *(*get_api)(Info, const char *version);
} Access;

#define DUCKDB_API(USE)                                                                                                \
	USE(3, int, duckdb_connect, (Database, Connection *))                                                              \
	USE(6, void, duckdb_disconnect, (Connection *))                                                                    \
	USE(156, LogicalType, duckdb_create_logical_type, (int type))                                                      \
	USE(184, void, duckdb_destroy_logical_type, (LogicalType *))                                                       \
	USE(190, Vector, duckdb_data_chunk_get_vector, (Chunk, idx_t column))                                              \
	USE(191, idx_t, duckdb_data_chunk_get_size, (Chunk))                                                               \
	USE(194, void *, duckdb_vector_get_data, (Vector))                                                                 \
	USE(195, uint64_t *, duckdb_vector_get_validity, (Vector))                                                         \
	USE(196, void, duckdb_vector_ensure_validity_writable, (Vector))                                                   \
	USE(198, void, duckdb_vector_assign_string_element_len, (Vector, idx_t row, const char *, idx_t length))           \
	USE(207, void, duckdb_validity_set_row_invalid, (uint64_t *, idx_t row))                                           \
	USE(209, Scalar, duckdb_create_scalar_function, (void))                                                            \
	USE(210, void, duckdb_destroy_scalar_function, (Scalar *))                                                         \
	USE(211, void, duckdb_scalar_function_set_name, (Scalar, const char *))                                            \
	USE(213, void, duckdb_scalar_function_set_special_handling, (Scalar))                                              \
	USE(214, void, duckdb_scalar_function_set_volatile, (Scalar))                                                      \
	USE(215, void, duckdb_scalar_function_add_parameter, (Scalar, LogicalType))                                        \
	USE(216, void, duckdb_scalar_function_set_return_type, (Scalar, LogicalType))                                      \
	USE(217, void, duckdb_scalar_function_set_extra_info, (Scalar, void *, void (*destroy)(void *)))                   \
	USE(218, void, duckdb_scalar_function_set_function, (Scalar, Call))                                                \
	USE(219, int, duckdb_register_scalar_function, (Connection, Scalar))                                               \
	USE(220, void *, duckdb_scalar_function_get_extra_info, (Info))                                                    \
	USE(221, void, duckdb_scalar_function_set_error, (Info, const char *))

#define DECLARE(place, result, name, parameters) static result(*name) parameters;
#define FETCH(place, result, name, parameters) memcpy(&name, (const char *)api + place * sizeof(name), sizeof(name));
DUCKDB_API(DECLARE)

// ---------------------------------------------------------------------------------------------------------------------
// What is said between this extension and the helper. A change here needs another PROTOCOL, in both.
// ---------------------------------------------------------------------------------------------------------------------

#define PROTOCOL 2
#define SOCKET_VARIABLE "DUCKDB_MISTRAL_SOCKET"
enum { MOST_PARAMETERS = 5, MOST_IDLE = 64, SOCKET_BUFFER = 1 << 20 };

// Each side says this first; these eight bytes stay as they are in every protocol.
typedef struct {
	char magic[4];
	uint32_t protocol;
} Hello;

// Then the columns. A column is a byte per row, 1 where it has a value, and after padding to 8 bytes either its numbers
// or, for a text, rows + 1 offsets of 8 bytes and the bytes of all texts; padded again.
typedef struct {
	char function[32]; // none: the database was closed, and no answer is wanted
	uint64_t database, bytes;
	uint32_t rows, unused;
} Request;

// Then the one column of the result or, where it failed, a sentence.
typedef struct {
	uint32_t failed, rows;
	uint64_t bytes;
} Reply;

static const char ENDED[] = "The helper process of the mistral functions has ended. What was submitted runs on at the "
                            "API; run the same statement again to start a new helper and continue from there.";
static const char NOT_STARTED[] = "The helper process of the mistral functions cannot be started: %s. Run "
                                  "duckdb-mistral extension where duckdb-mistral is installed, and load the file that "
                                  "it prints.";
static const char NOT_ANSWERED[] = "The helper process of the mistral functions ended before it was ready. What it "
                                   "printed on standard error says why; duckdb-mistral doctor checks the rest.";
static const char OTHER_PROTOCOL[] = "This mistral extension and its helper process come from different versions of "
                                     "duckdb-mistral (they speak protocol %u and %u). Restart this program, and load "
                                     "the file that duckdb-mistral extension prints.";
static const char UNREADABLE[] = "The helper process of the mistral functions gave an answer that cannot be read.";
static const char NO_MEMORY[] = "There is not enough memory for a call of the mistral functions.";

// ---------------------------------------------------------------------------------------------------------------------
// The helper process and the connections to it, shared by all databases and threads of this process
// ---------------------------------------------------------------------------------------------------------------------

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int idle[MOST_IDLE], idle_count; // connections that no call uses now
static int control = -1;                // hands a connection over to the helper
static bool handed_over;                // whether `control` came from the process that started this one
static pid_t helper, owner;             // owner: the process that the connections belong to; a fork is another one
static char folder[PATH_MAX];           // where this extension lies, with a slash

static void lock_all(void) {
	pthread_mutex_lock(&lock);
}

static void unlock_all(void) {
	pthread_mutex_unlock(&lock);
}

static bool send_all(int fd, const char *from, size_t bytes) {
	while (bytes) {
		ssize_t sent = send(fd, from, bytes, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR) {
			continue;
		}
		if (sent <= 0) {
			return false;
		}
		from += sent;
		bytes -= (size_t)sent;
	}
	return true;
}

static bool receive_all(int fd, char *into, size_t bytes) {
	while (bytes) {
		ssize_t received = recv(fd, into, bytes, 0);
		if (received < 0 && errno == EINTR) {
			continue;
		}
		if (received <= 0) {
			return false;
		}
		into += received;
		bytes -= (size_t)received;
	}
	return true;
}

// Return a copy of `fd` that no child inherits, above the standard descriptors, which a child's are put in place of.
static int own(int fd) {
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 10);
	close(fd);
	if (copy >= 0) {
		int size = SOCKET_BUFFER;
		setsockopt(copy, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
#ifdef SO_NOSIGPIPE
		setsockopt(copy, SOL_SOCKET, SO_NOSIGPIPE, &(int) {1}, sizeof(int));
#endif
	}
	return copy;
}

static bool make_pair(int pair[2]) {
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) {
		return false;
	}
	pair[0] = own(pair[0]);
	pair[1] = own(pair[1]);
	if (pair[0] >= 0 && pair[1] >= 0) {
		return true;
	}
	close(pair[0]);
	close(pair[1]);
	return false;
}

// Close what leads to the helper. A helper that this process started then ends.
static void leave_helper(void) {
	while (idle_count) {
		close(idle[--idle_count]);
	}
	if (handed_over && owner == getpid()) {
		return; // whoever started this process starts another helper
	}
	if (control >= 0) {
		close(control);
	}
	control = -1;
	handed_over = false;
}

// Read the path of the Python that has duckdb_mistral: `duckdb-mistral extension` writes it beside this extension.
static bool read_python(char *path, size_t size) {
	char name[PATH_MAX + 8];
	snprintf(name, sizeof(name), "%shelper", folder);
	FILE *file = fopen(name, "re");
	if (!file) {
		return false;
	}
	bool read = fgets(path, (int)size, file) != NULL;
	fclose(file);
	path[read ? strcspn(path, "\n") : 0] = 0;
	return read && *path;
}

// Start the helper with `fd` as its standard input. Its output is our standard error: our output is the caller's.
static int spawn_helper(int fd) {
	char python[PATH_MAX];
	char *by_file[] = {python, "-P", "-m", "duckdb_mistral.shell.helper", NULL};
	char *by_path[] = {"duckdb-mistral", "helper", NULL};
	char **arguments = read_python(python, sizeof(python)) ? by_file : by_path;
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t signals;
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attributes);
	posix_spawn_file_actions_adddup2(&files, fd, 0);
	int errors = fcntl(2, F_DUPFD_CLOEXEC, 10); // Node marks its own to be closed in children; what a copy becomes is not
	if (errors < 0) {
		posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
	} else {
		posix_spawn_file_actions_adddup2(&files, errors, 2);
	}
	posix_spawn_file_actions_adddup2(&files, 2, 1);
	// Ctrl-C is for the helper too, but not before it is ready.
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	posix_spawnattr_setsigmask(&attributes, &signals);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	if (helper > 0 && owner == getpid()) {
		waitpid(helper, NULL, WNOHANG); // the one before
	}
	helper = 0;
	int failed = posix_spawnp(&helper, arguments[0], &files, &attributes, arguments, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attributes);
	close(errors);
	return failed;
}

static bool start_helper(char *trouble, size_t size) {
	int pair[2];
	if (!make_pair(pair)) {
		snprintf(trouble, size, NOT_STARTED, strerror(errno));
		return false;
	}
	int failed = spawn_helper(pair[1]);
	close(pair[1]);
	if (failed) {
		close(pair[0]);
		snprintf(trouble, size, NOT_STARTED, strerror(failed));
		return false;
	}
	control = pair[0];
	owner = getpid();
	return true;
}

// Hand `fd` to the helper.
static bool hand_over(int fd) {
	Hello hello = {{'m', 's', 't', 'l'}, PROTOCOL};
	struct iovec data = {&hello, sizeof(hello)};
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {0};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(int));
	ssize_t sent;
	do {
		sent = sendmsg(control, &message, MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent == (ssize_t)sizeof(hello);
}

// Return a new connection to the helper, which is started if need be; under the lock.
static int connect_helper(char *trouble, size_t size) {
	int pair[2];
	if (control < 0 && !start_helper(trouble, size)) {
		return -1;
	}
	if (!make_pair(pair)) {
		snprintf(trouble, size, NOT_STARTED, strerror(errno));
		return -1;
	}
	bool handed = hand_over(pair[1]);
	close(pair[1]);
	if (handed) {
		return pair[0];
	}
	close(pair[0]);
	leave_helper();
	snprintf(trouble, size, "%s", ENDED);
	return -1;
}

static bool greeted(int fd, char *trouble, size_t size) {
	Hello hello;
	if (!receive_all(fd, (char *)&hello, sizeof(hello)) || memcmp(hello.magic, "mstl", 4) != 0) {
		snprintf(trouble, size, "%s", NOT_ANSWERED);
		return false;
	}
	if (hello.protocol != PROTOCOL) {
		snprintf(trouble, size, OTHER_PROTOCOL, PROTOCOL, hello.protocol);
		return false;
	}
	return true;
}

// Tell whether the helper still holds the other end of an idle connection.
static bool alive(int fd) {
	char byte;
	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

// Return a connection for one call, or -1 and `trouble`. Calls come from many threads, and each has its own.
static int take(char *trouble, size_t size) {
	lock_all();
	if (owner != getpid()) { // after a fork, what is open belongs to the parent
		leave_helper();
	}
	while (idle_count) {
		int fd = idle[--idle_count];
		if (alive(fd)) {
			unlock_all();
			return fd;
		}
		close(fd);
		leave_helper();
	}
	int fd = connect_helper(trouble, size);
	unlock_all();
	if (fd >= 0 && !greeted(fd, trouble, size)) {
		close(fd);
		lock_all();
		leave_helper();
		unlock_all();
		return -1;
	}
	return fd;
}

static void give_back(int fd, bool good) {
	lock_all();
	if (!good) {
		leave_helper();
	} else if (idle_count < MOST_IDLE) {
		idle[idle_count++] = fd;
		fd = -1;
	}
	unlock_all();
	if (fd >= 0) {
		close(fd);
	}
}

// ---------------------------------------------------------------------------------------------------------------------
// Vectors as bytes
// ---------------------------------------------------------------------------------------------------------------------

static size_t padded(size_t bytes) {
	return (bytes + 7) / 8 * 8;
}

static size_t width(int type) {
	return type == TINYINT ? 1 : 8;
}

static bool has_value(const uint64_t *validity, idx_t row) {
	return !validity || (validity[row / 64] >> (row % 64) & 1);
}

static size_t column_size(int type, Vector vector, idx_t rows) {
	if (type != VARCHAR) {
		return padded(rows) + padded(rows * width(type));
	}
	const String *texts = duckdb_vector_get_data(vector);
	const uint64_t *validity = duckdb_vector_get_validity(vector);
	size_t total = 0;
	for (idx_t row = 0; row < rows; row++) {
		total += has_value(validity, row) ? texts[row].length : 0;
	}
	return padded(rows) + (rows + 1) * sizeof(int64_t) + padded(total);
}

static void write_texts(const String *texts, const char *values, idx_t rows, char *at) {
	char *data = at + (rows + 1) * sizeof(int64_t);
	int64_t offset = 0;
	for (idx_t row = 0; row < rows; row++) {
		memcpy(at + row * sizeof(offset), &offset, sizeof(offset));
		if (values[row]) {
			const String *text = &texts[row];
			memcpy(data + offset, text->length <= sizeof(text->inlined) ? text->inlined : text->pointer, text->length);
			offset += text->length;
		}
	}
	memcpy(at + rows * sizeof(offset), &offset, sizeof(offset));
}

static void write_column(int type, Vector vector, idx_t rows, char *at) {
	const uint64_t *validity = duckdb_vector_get_validity(vector);
	for (idx_t row = 0; row < rows; row++) {
		at[row] = has_value(validity, row);
	}
	if (type == VARCHAR) {
		write_texts(duckdb_vector_get_data(vector), at, rows, at + padded(rows));
	} else {
		memcpy(at + padded(rows), duckdb_vector_get_data(vector), rows * width(type));
	}
}

// Read `bytes` that the helper sent into the result; false if they are not a column of `rows`.
static bool read_column(int type, Vector result, idx_t rows, const char *from, size_t bytes) {
	size_t fixed = padded(rows) + (type == VARCHAR ? (rows + 1) * sizeof(int64_t) : rows * width(type));
	if (bytes < fixed) {
		return false;
	}
	const char *values = from + padded(rows), *texts = from + fixed;
	if (type != VARCHAR) {
		memcpy(duckdb_vector_get_data(result), values, rows * width(type));
	}
	for (idx_t row = 0; row < rows; row++) {
		if (!from[row]) {
			duckdb_vector_ensure_validity_writable(result);
			duckdb_validity_set_row_invalid(duckdb_vector_get_validity(result), row);
		} else if (type == VARCHAR) {
			int64_t ends[2];
			memcpy(ends, values + row * sizeof(int64_t), sizeof(ends));
			if (ends[0] < 0 || ends[1] < ends[0] || (uint64_t)ends[1] > bytes - fixed ||
			    ends[1] - ends[0] > (int64_t)UINT32_MAX) {
				return false;
			}
			duckdb_vector_assign_string_element_len(result, row, texts + ends[0], (idx_t)(ends[1] - ends[0]));
		}
	}
	return true;
}

// ---------------------------------------------------------------------------------------------------------------------
// The functions
// ---------------------------------------------------------------------------------------------------------------------

typedef struct {
	const char *name;
	int parameters[MOST_PARAMETERS + 1], returns;
	bool is_volatile;
} Function;

// Whatever concerns a few rows goes through the first: the name of a function and its arguments as JSON.
static const Function FUNCTIONS[] = {
    {"mistral_internal_call", {VARCHAR, VARCHAR}, VARCHAR, true},
    {"mistral_internal_spool", {BIGINT, VARCHAR, UBIGINT, VARCHAR, VARCHAR}, TINYINT, true},
    {"mistral_internal_tokens", {VARCHAR, VARCHAR}, BIGINT, true},
    {"mistral_internal_line", {VARCHAR, UBIGINT, VARCHAR}, VARCHAR, false},
};

// A function of one database. Connections of two databases have the same numbers, so the helper has to tell them apart.
typedef struct {
	const Function *function;
	uint64_t database;
} Registered;

static char *message_of(const Registered *registered, Chunk input, idx_t rows, size_t *bytes) {
	const Function *function = registered->function;
	size_t sizes[MOST_PARAMETERS] = {0};
	*bytes = sizeof(Request);
	for (int column = 0; function->parameters[column]; column++) {
		sizes[column] = column_size(function->parameters[column], duckdb_data_chunk_get_vector(input, column), rows);
		*bytes += sizes[column];
	}
	char *message = calloc(1, *bytes);
	if (!message) {
		return NULL;
	}
	Request request = {.database = registered->database, .bytes = *bytes - sizeof(Request), .rows = (uint32_t)rows};
	snprintf(request.function, sizeof(request.function), "%s", function->name);
	memcpy(message, &request, sizeof(request));
	char *at = message + sizeof(request);
	for (int column = 0; function->parameters[column]; at += sizes[column++]) {
		write_column(function->parameters[column], duckdb_data_chunk_get_vector(input, column), rows, at);
	}
	return message;
}

// Send a message and return the bytes of its answer, ended by a zero; NULL where the helper is gone.
static char *answer_to(const char *message, size_t bytes, Reply *reply, char *trouble, size_t size) {
	int fd = take(trouble, size);
	if (fd < 0) {
		return NULL;
	}
	snprintf(trouble, size, "%s", ENDED);
	char *answer = NULL;
	if (send_all(fd, message, bytes) && receive_all(fd, (char *)reply, sizeof(*reply))) {
		answer = reply->bytes < SIZE_MAX ? malloc(reply->bytes + 1) : NULL;
		if (!answer) {
			snprintf(trouble, size, "%s", NO_MEMORY);
		} else if (!receive_all(fd, answer, reply->bytes)) {
			free(answer);
			answer = NULL;
		} else {
			answer[reply->bytes] = 0;
		}
	}
	give_back(fd, answer != NULL);
	return answer;
}

static void forward(Info info, Chunk input, Vector result) {
	const Registered *registered = duckdb_scalar_function_get_extra_info(info);
	idx_t rows = duckdb_data_chunk_get_size(input);
	char trouble[1024];
	size_t bytes;
	char *message = message_of(registered, input, rows, &bytes);
	if (!message) {
		duckdb_scalar_function_set_error(info, NO_MEMORY);
		return;
	}
	Reply reply;
	char *answer = answer_to(message, bytes, &reply, trouble, sizeof(trouble));
	free(message);
	if (!answer) {
		duckdb_scalar_function_set_error(info, trouble);
	} else if (reply.failed) {
		duckdb_scalar_function_set_error(info, answer);
	} else if (reply.rows != rows ||
	           !read_column(registered->function->returns, result, rows, answer, reply.bytes)) {
		duckdb_scalar_function_set_error(info, UNREADABLE);
	}
	free(answer);
}

// DuckDB lets go of a function when its database is closed. The helper, if there is one, closes what belongs to it.
static void release(void *given) {
	Registered *registered = given;
	Request request = {.database = registered->database};
	if (registered->function == FUNCTIONS) {
		lock_all();
		int fd = owner == getpid() && idle_count ? idle[--idle_count] : -1;
		unlock_all();
		if (fd >= 0) {
			give_back(fd, send_all(fd, (const char *)&request, sizeof(request)));
		}
	}
	free(registered);
}

static bool register_function(Connection connection, const Function *function, uint64_t database) {
	Registered *registered = malloc(sizeof(*registered));
	if (!registered) {
		return false;
	}
	*registered = (Registered) {function, database};
	Scalar scalar = duckdb_create_scalar_function();
	duckdb_scalar_function_set_name(scalar, function->name);
	for (const int *parameter = function->parameters; *parameter; parameter++) {
		LogicalType type = duckdb_create_logical_type(*parameter);
		duckdb_scalar_function_add_parameter(scalar, type);
		duckdb_destroy_logical_type(&type);
	}
	LogicalType type = duckdb_create_logical_type(function->returns);
	duckdb_scalar_function_set_return_type(scalar, type);
	duckdb_destroy_logical_type(&type);
	duckdb_scalar_function_set_extra_info(scalar, registered, release);
	duckdb_scalar_function_set_special_handling(scalar); // NULL is an argument like others
	if (function->is_volatile) {
		duckdb_scalar_function_set_volatile(scalar);
	}
	duckdb_scalar_function_set_function(scalar, forward);
	bool done = duckdb_register_scalar_function(connection, scalar) == 0;
	duckdb_destroy_scalar_function(&scalar);
	return done;
}

// Take over the socket by which `duckdb-mistral shell` has started this process; its helper has the key, we have not.
static void take_over_socket(void) {
	const char *given = getenv(SOCKET_VARIABLE);
	int fd = given ? atoi(given) : -1, type = 0;
	socklen_t size = sizeof(type);
	if (fd > 2 && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM) {
		control = own(fd);
		handed_over = control >= 0;
		owner = getpid();
	}
	if (given) {
		unsetenv(SOCKET_VARIABLE); // it means nothing to a child of this process
	}
}

// Done once, when the first database of this process loads the extension.
static void prepare(void) {
	Dl_info here;
	char path[PATH_MAX];
	memcpy(folder, "./", 3);
	// The path may be relative, and has to hold when the directory changes.
	if (dladdr((const void *)FUNCTIONS, &here) && realpath(here.dli_fname, path)) {
		*(strrchr(path, '/') + 1) = 0;
		memcpy(folder, path, sizeof(path));
	}
	take_over_socket();
	pthread_atfork(lock_all, unlock_all, unlock_all);
}

__attribute__((visibility("default"))) bool mistral_init_c_api(Info info, const Access *access) {
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	static uint64_t databases;
	const void *api = access->get_api(info, "v1.2.0");
	if (!api) {
		return false; // DuckDB has kept its reason
	}
	lock_all();
	DUCKDB_API(FETCH)
	uint64_t database = ++databases;
	unlock_all();
	pthread_once(&once, prepare);
	Connection connection;
	bool done = duckdb_connect(*access->get_database(info), &connection) == 0;
	if (done) {
		for (size_t each = 0; each < sizeof(FUNCTIONS) / sizeof(*FUNCTIONS); each++) {
			done = done && register_function(connection, &FUNCTIONS[each], database);
		}
		duckdb_disconnect(&connection);
	}
	if (!done) {
		access->set_error(info, "The mistral functions could not be registered.");
	}
	return done;
}
