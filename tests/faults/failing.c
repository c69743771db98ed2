// Makes the k-th operation on files below one folder fail, once: preloaded, so that it sees Orbax's and ArrayRecord's
// native writes as well as Python's. Built and armed by operations.py.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char below[4096], what[8192];
static atomic_int seen;
static int failing, code;

// which: the operation to fail, from 1; 0 only counts. An empty folder disarms.
void faults_arm(const char *folder, int which, int error) {
  below[0] = 0;
  atomic_store(&seen, 0);
  what[0] = 0;
  failing = which;
  code = error;
  snprintf(below, sizeof below, "%s", folder);
}
int faults_seen(void) { return atomic_load(&seen); }
const char *faults_what(void) { return what; }

static int fails(const char *name, const char *path) {
  size_t length = strlen(below);
  if (!length || strncmp(path, below, length)) return 0;
  if (atomic_fetch_add(&seen, 1) + 1 != failing) return 0;
  snprintf(what, sizeof what, "%s %s", name, path + length);
  errno = code;
  return 1;
}
static int fails_fd(const char *name, int fd) {
  char link[64], path[4096];
  if (!below[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return fails(name, path);
}
static int fails_at(const char *name, int folder, const char *file) {
  char link[64], path[4096];
  if (!below[0]) return 0;
  if (file[0] == '/' || folder == AT_FDCWD) return fails(name, file);
  snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
  ssize_t length = readlink(link, path, sizeof path - 300);
  if (length < 0) return 0;
  snprintf(path + length, 300, "/%s", file);
  return fails(name, path);
}

#define REAL(result, name, ...) ((result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))
#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    return fails("open", path) ? -1 : REAL(int, name, const char *, int, ...)(path, flags, mode); }
#define OPENAT(name) \
  int name(int folder, const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    return fails_at("open", folder, path) ? -1 : REAL(int, name, int, const char *, int, ...)(folder, path, flags, mode); }
#define ON_FD(result, name, label, declared, passed, ...) \
  result name declared { return fails_fd(label, fd) ? -1 : REAL(result, name, __VA_ARGS__) passed; }
#define ON_PATH(name, declared, passed, ...) \
  int name declared { return fails(#name, path) ? -1 : REAL(int, name, __VA_ARGS__) passed; }
#define ON_AT(name, declared, passed, ...) \
  int name declared { return fails_at(#name, folder, path) ? -1 : REAL(int, name, __VA_ARGS__) passed; }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
ON_FD(ssize_t, write, "write", (int fd, const void *b, size_t n), (fd, b, n), int, const void *, size_t)
ON_FD(ssize_t, writev, "write", (int fd, const struct iovec *v, int n), (fd, v, n), int, const struct iovec *, int)
ON_FD(ssize_t, pwrite, "write", (int fd, const void *b, size_t n, off_t o), (fd, b, n, o), int, const void *, size_t, off_t)
ON_FD(ssize_t, pwrite64, "write", (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o), int, const void *, size_t, off64_t)
ON_FD(ssize_t, pwritev, "write", (int fd, const struct iovec *v, int n, off_t o), (fd, v, n, o), int, const struct iovec *, int, off_t)
ON_FD(ssize_t, pwritev64, "write", (int fd, const struct iovec *v, int n, off64_t o), (fd, v, n, o), int, const struct iovec *, int, off64_t)
ON_FD(int, fsync, "fsync", (int fd), (fd), int)
ON_FD(int, fdatasync, "fsync", (int fd), (fd), int)
ON_FD(int, ftruncate, "ftruncate", (int fd, off_t n), (fd, n), int, off_t)
ON_FD(int, ftruncate64, "ftruncate", (int fd, off64_t n), (fd, n), int, off64_t)
ON_PATH(rename, (const char *path, const char *to), (path, to), const char *, const char *)
ON_PATH(unlink, (const char *path), (path), const char *)
ON_PATH(rmdir, (const char *path), (path), const char *)
ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode), const char *, mode_t)
ON_AT(renameat, (int folder, const char *path, int f, const char *to), (folder, path, f, to), int, const char *, int, const char *)
ON_AT(renameat2, (int folder, const char *path, int f, const char *to, unsigned how), (folder, path, f, to, how), int, const char *, int, const char *, unsigned)
ON_AT(unlinkat, (int folder, const char *path, int flags), (folder, path, flags), int, const char *, int)
ON_AT(mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode), int, const char *, mode_t)
