/* guard: the one program that stands between a host and what runs inside a sandbox of ext.native.
 *
 *   guard hold NAMESPACE SHA256 PROGRAM WORD...      outside: becomes the holder, and starts bubblewrap below it
 *   guard init [LIMIT...] -- WORD...                 inside: the first process; starts the words, and reaps
 *   guard enter TOKEN PID START UID HEADER [LIMIT...]  outside: runs a command in the namespaces of process PID
 *
 * Freestanding (no libc, no start-up code of others), so that one small file runs on every host. What follows behind
 * the ELF image in its own file is the sandbox's seccomp program, then its length and MAGIC: see bundle() in
 * guard/__init__.py. From stage "held" on the image is a memory file sealed against every write.
 *
 * Each step stands in the order that makes it safe; see docs/decisions/0017-guard.md.
 */
#include <asm/ioctls.h>
#include <asm/stat.h>
#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/keyctl.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/stat.h>
#include <linux/wait.h>

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

#define SELF 9 /* where the sealed image travels through bubblewrap */
#define MAGIC 0x3147424553584253UL
#define NS_GET_USERNS 0xb701
#define SIG_SETMASK 2
#define SIGKILL 9
#define SIGCHLD 17
#define SIGCONT 18
#define SIGTTIN 21
#define POLLHUP 16
#define ENOENT 2
#define EINTR 4
#define EACCES 13
#define ENOTDIR 20
#define EINVAL 22
#define ENOEXEC 8
#define E2BIG 7
#define MFD_EXEC_ 0x10u
#define MAP_FAILED_ ((u64) - 4096)

#if defined(__x86_64__)
static long call(long n, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long ret;
  __asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return ret;
}
__asm__(".globl _start\n_start:\n xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n");
#elif defined(__aarch64__)
static long call(long n, long a, long b, long c, long d, long e, long f) {
  register long x8 __asm__("x8") = n;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}
__asm__(".globl _start\n_start:\n mov x29,#0\n mov x0,sp\n bl begin\n");
#else
#error "no system calls for this machine"
#endif
#define S(n, a, b, c, d, e) call(__NR_##n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define S3(n, a, b, c) S(n, a, b, c, 0, 0)

/* The compiler may call these for copies and fills. */
void *memcpy(void *to, const void *from, u64 n) {
  u8 *t = to;
  const u8 *f = from;
  while (n--) *t++ = *f++;
  return to;
}
void *memset(void *to, int c, u64 n) {
  u8 *t = to;
  while (n--) *t++ = (u8)c;
  return to;
}

static u64 length(const char *s) {
  u64 n = 0;
  while (s[n]) n++;
  return n;
}
static int same(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}
static const char *after(const char *s, const char *prefix) { /* what follows the prefix, or 0 */
  while (*prefix)
    if (*s++ != *prefix++) return 0;
  return s;
}
static int number(const char **s, u64 *out) {
  u64 n = 0;
  const char *p = *s;
  if (*p < '0' || *p > '9') return 0;
  for (; *p >= '0' && *p <= '9'; p++) {
    if (n > (~0UL - 9) / 10) return 0;
    n = n * 10 + (u64)(*p - '0');
  }
  *s = p;
  *out = n;
  return 1;
}
static u64 whole_number(const char *s, int *bad) {
  u64 n = 0;
  if (!number(&s, &n) || *s) *bad = 1;
  return n;
}
static char *put(char *to, const char *s) {
  while (*s) *to++ = *s++;
  *to = 0;
  return to;
}
static char *put_number(char *to, u64 n) {
  char digits[24];
  int i = 24;
  digits[--i] = 0;
  do digits[--i] = (char)('0' + n % 10);
  while (n /= 10);
  return put(to, digits + i);
}

static const char *token = ""; /* what tells our complaints from the program's own */
static void say(const char *a, const char *b, long error) {
  static char line[4096];
  char *p = line;
  const char *parts[] = {token, a, b};
  for (int i = 0; i < 3; i++)
    for (const char *s = parts[i]; *s && p < line + 3900; s++) *p++ = *s;
  switch (-error) {
  case 0: break;
  case 1: p = put(p, ": Operation not permitted"); break;
  case ENOENT: p = put(p, ": No such file or directory"); break;
  case 3: p = put(p, ": No such process"); break;
  case E2BIG: p = put(p, ": Argument list too long"); break;
  case ENOEXEC: p = put(p, ": Exec format error"); break;
  case EACCES: p = put(p, ": Permission denied"); break;
  case ENOTDIR: p = put(p, ": Not a directory"); break;
  case EINVAL: p = put(p, ": Invalid argument"); break;
  case 28: p = put(p, ": No space left on device"); break;
  default: p = put_number(put(p, ": error "), (u64)-error);
  }
  *p++ = '\n';
  S3(write, 2, line, p - line);
}
static void quit(int code) __attribute__((noreturn));
static void quit(int code) {
  for (;;) S3(exit_group, code, 0, 0);
}
static void die(const char *what, long error) __attribute__((noreturn));
static void die(const char *what, long error) {
  say(what, "", error);
  quit(125);
}
static long must(long result, const char *what) {
  if (result < 0) die(what, result);
  return result;
}
static long again(int fd, void *to, u64 n) { /* a whole read: n bytes, or fewer at the end */
  u64 got = 0;
  while (got < n) {
    long r = S3(read, fd, (u8 *)to + got, n - got);
    if (r == -EINTR) continue;
    if (r < 0) return r;
    if (r == 0) break;
    got += (u64)r;
  }
  return (long)got;
}
static void *room(u64 n) {
  u64 at = (u64)call(__NR_mmap, 0, (long)n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at > MAP_FAILED_) die("no memory", (long)at);
  return (void *)at;
}
static void close_from(u32 first) {
  if (S3(close_range, first, ~0U, 0) == 0) return;
  for (u32 fd = first; fd < 65536; fd++) S3(close, fd, 0, 0); /* before Linux 5.9 */
}
static void write_file(const char *path, const char *text, int needed) {
  long fd = S(openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0, 0);
  long done = fd < 0 ? fd : S3(write, fd, text, length(text));
  if (fd >= 0) S3(close, fd, 0, 0);
  if (done < 0 && needed) {
    say("write failed ", path, done);
    quit(125);
  }
}

/* SHA-256 (FIPS 180-4). */
static const u32 K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
static u32 turn(u32 x, int n) { return x >> n | x << (32 - n); }
static void block(u32 *h, const u8 *p) {
  u32 w[64], s[8];
  for (int i = 0; i < 16; i++, p += 4) w[i] = (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | p[3];
  for (int i = 16; i < 64; i++)
    w[i] = w[i - 16] + (turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
           (turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10);
  for (int i = 0; i < 8; i++) s[i] = h[i];
  for (int i = 0; i < 64; i++) {
    u32 a = s[7] + (turn(s[4], 6) ^ turn(s[4], 11) ^ turn(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + w[i];
    u32 b = (turn(s[0], 2) ^ turn(s[0], 13) ^ turn(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    for (int j = 7; j > 0; j--) s[j] = s[j - 1];
    s[4] += a;
    s[0] = a + b;
  }
  for (int i = 0; i < 8; i++) h[i] += s[i];
}
static void sha256(const u8 *data, u64 n, char *hex) {
  u32 h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  u64 left = n;
  for (; left >= 64; left -= 64, data += 64) block(h, data);
  u8 last[128];
  u64 size = left < 56 ? 64 : 128;
  memset(last, 0, 128);
  memcpy(last, data, left);
  last[left] = 0x80;
  for (int i = 0; i < 8; i++) last[size - 1 - (u64)i] = (u8)(n * 8 >> (8 * i));
  for (u64 at = 0; at < size; at += 64) block(h, last + at);
  for (int i = 0; i < 64; i++) *hex++ = "0123456789abcdef"[h[i / 8] >> (28 - 4 * (i % 8)) & 15];
  *hex = 0;
}

/* A copy in memory that nobody can write, not even its owner. Its hash is taken of the sealed copy. */
static int sealed(int from, const char *name, char *hex) {
  long to = S3(memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC_, 0);
  if (to == -EINVAL) to = S3(memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING, 0); /* before Linux 6.3 */
  must(to, "no memory file");
  static u8 buffer[65536];
  u64 size = 0;
  for (long got; (got = must(again(from, buffer, sizeof buffer), "cannot be read")) > 0; size += (u64)got)
    for (long at = 0; at < got;) at += must(S3(write, to, buffer + at, got - at), "memory file");
  must(S3(fchmod, to, 0555, 0), "memory file");
  must(S3(fcntl, to, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), "cannot be sealed");
  if (hex) {
    u64 at = (u64)call(__NR_mmap, 0, (long)(size ? size : 1), PROT_READ, MAP_PRIVATE, to, 0);
    if (at > MAP_FAILED_) die("memory file", (long)at);
    sha256((u8 *)at, size, hex);
  }
  return (int)to;
}

/* The seccomp program behind our own image; none has length 0. */
struct filter {
  unsigned short n;
  u8 *code;
};
static struct filter own_filter(void) {
  struct filter found = {0, 0};
  u64 trailer[2];
  long fd = must(S(openat, AT_FDCWD, "/proc/self/exe", O_RDONLY | O_CLOEXEC, 0, 0), "/proc/self/exe");
  long end = must(S3(lseek, fd, 0, 2), "/proc/self/exe");
  if (end > 16 && S(pread64, fd, trailer, 16, end - 16, 0) == 16 && trailer[1] == MAGIC) {
    u64 size = trailer[0];
    if (size % 8 || size > 65535UL * 8 || size + 16 > (u64)end) die("the filter is damaged", 0);
    if (size) {
      found.code = room(size);
      if (S(pread64, fd, found.code, size, (u64)end - 16 - size, 0) != (long)size) die("the filter is damaged", 0);
      found.n = (unsigned short)(size / 8);
    }
  } else {
    die("the filter is missing", 0);
  }
  S3(close, fd, 0, 0);
  return found;
}
static void load(const struct filter *filter) {
  must(S(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
  struct {
    unsigned short n;
    void *code;
  } program = {filter->n, filter->code};
  if (filter->n) must(S3(seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), "the filter was refused");
}
static void unseen(void) { must(S(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable"); }
static void unblock(void) {
  u64 none = 0;
  S(rt_sigprocmask, SIG_SETMASK, &none, 0, 8, 0);
}
static void block_all(void) {
  u64 all = ~0UL;
  S(rt_sigprocmask, SIG_SETMASK, &all, 0, 8, 0);
  struct {
    void *handler;
    u64 rest[3];
  } usual = {0, {0, 0, 0}};
  S(rt_sigaction, SIGCHLD, &usual, 0, 8, 0); /* ignored, it would take our children's ends */
}
static long fork_(void) { return call(__NR_clone, SIGCHLD, 0, 0, 0, 0, 0); }
static int code_of(int status) { return (status & 127) ? 128 + (status & 127) : status >> 8 & 255; }

static void limit(const char *word) { /* nofile=SOFT:HARD, as prlimit of util-linux has it */
  static const struct {
    const char *name;
    int number;
  } known[] = {{"--cpu=", 0}, {"--fsize=", 1}, {"--core=", 4}, {"--nproc=", 6}, {"--nofile=", 7}};
  for (u32 i = 0; i < sizeof known / sizeof *known; i++) {
    const char *p = after(word, known[i].name);
    u64 both[2];
    if (!p) continue;
    if (!number(&p, &both[0]) || *p++ != ':' || !number(&p, &both[1]) || *p) break;
    long done = S(prlimit64, 0, known[i].number, both, 0, 0);
    if (done < 0) {
      say("limit ", word, done);
      quit(125);
    }
    return;
  }
  say("unknown limit ", word, 0);
  quit(125);
}

static void own_keyring(int filtered) { /* what a login keeps in the kernel follows its session's keyring everywhere */
  long done = S(keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0);
  /* where the call is closed to us (1, 38) it is closed to what we start; else the filter closes it */
  if (done < 0 && done != -1 && done != -38 && !filtered) die("no keyring of its own", done);
}

/* hold: outside. The image on the disk makes a sealed copy of itself and becomes that; the copy starts bubblewrap,
 * which hands it on to the first process inside, and waits. Later commands are run by the copy: /proc/PID/exe. */
static void hold(char **argv, char **envp) {
  own_keyring(own_filter().n);
  S3(setsid, 0, 0, 0);
  long self = must(S(openat, AT_FDCWD, "/proc/self/exe", O_RDONLY | O_CLOEXEC, 0, 0), "/proc/self/exe");
  int copy = sealed((int)self, "guard", 0);
  must(S3(dup3, copy, SELF, 0), "descriptor");
  argv[1] = "held";
  must(S(execveat, SELF, "", argv, envp, AT_EMPTY_PATH), "a sealed copy cannot be executed (vm.memfd_noexec?)");
}
static void share_less(const char *path) { /* a quarter of what the user has, in every sandbox */
  char text[32];
  long fd = S(openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0, 0);
  if (fd < 0) return;
  long got = again((int)fd, text, sizeof text - 1);
  S3(close, fd, 0, 0);
  if (got <= 0) return;
  text[got] = 0;
  const char *p = text;
  u64 n = 0;
  if (!number(&p, &n) || n < 4) return;
  put_number(text, n / 4);
  char target[64] = "/proc/sys/user/max_inotify_";
  put(target + length(target), after(path, "/proc/sys/fs/inotify/max_user_"));
  write_file(target, text, 0);
}
static void user_namespace(void) {
  u64 uid = (u64)S3(geteuid, 0, 0, 0), gid = (u64)S3(getegid, 0, 0, 0);
  char line[64];
  must(S3(unshare, CLONE_NEWUSER, 0, 0), "unshare failed");
  put(put_number(put(line, "0 "), uid), " 1\n");
  write_file("/proc/self/uid_map", line, 1);
  write_file("/proc/self/setgroups", "deny", 0);
  put(put_number(put(line, "0 "), gid), " 1\n");
  write_file("/proc/self/gid_map", line, 1);
  share_less("/proc/sys/fs/inotify/max_user_instances");
  share_less("/proc/sys/fs/inotify/max_user_watches");
}
static void held(int argc, char **argv, char **envp) {
  if (argc < 5) die("hold: words are missing", 0);
  block_all();
  long child = must(fork_(), "no process");
  if (child) {
    close_from(0);
    for (int status;;) {
      long pid = S(wait4, -1, &status, __WALL, 0, 0);
      if (pid == child) quit(code_of(status));
      if (pid < 0 && pid != -EINTR) quit(125);
    }
  }
  unblock();
  /* bubblewrap does the same to the first process: with the holder all ends */
  must(S(prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "its end with ours");
  if (same(argv[2], "user")) user_namespace();
  char **words = argv + 4;
  if (!same(argv[3], "-")) {
    char hex[65];
    long from = S(openat, AT_FDCWD, words[0], O_RDONLY | O_CLOEXEC, 0, 0);
    if (from < 0) {
      say(words[0], "", from);
      quit(125);
    }
    int copy = sealed((int)from, "bwrap", hex);
    if (!same(hex, argv[3])) {
      say(words[0], " is not what it was when the sandbox was made", 0);
      quit(125);
    }
    must(S(execveat, copy, "", words, envp, AT_EMPTY_PATH), words[0]);
  }
  must(S3(execve, words[0], words, envp), words[0]);
}

/* init: the first process inside. Nothing else runs in there before it is undumpable: neither its memory nor its
 * descriptors nor its root and image can be had by a trace, and no signal but the host's reaches it. */
static void init(char **argv, char **envp) {
  unseen();
  S(prctl, PR_SET_NAME, "guard", 0, 0, 0);
  struct filter filter = own_filter();
  char **words = argv + 2;
  for (; *words && !same(*words, "--"); words++) limit(*words);
  if (!*words || !words[1]) die("init: words are missing", 0);
  close_from(3);
  block_all();
  load(&filter);
  long child = must(fork_(), "no process");
  if (!child) {
    unblock();
    must(S3(execve, words[1], words + 1, envp), words[1]);
  }
  close_from(0);
  for (int status;;) {
    long pid = S(wait4, -1, &status, __WALL, 0, 0);
    if (pid == child) quit(code_of(status));
  }
}

/* enter: outside, from the sealed image. */
static const char *stat_of(int dir) { /* of the process of a directory of /proc, from its state on; 0 when it is gone */
  static char text[4096];
  long fd = S(openat, dir, "stat", O_RDONLY | O_CLOEXEC, 0, 0);
  long got = fd < 0 ? fd : again((int)fd, text, sizeof text - 1);
  if (fd >= 0) S3(close, fd, 0, 0);
  if (got <= 0) return 0;
  text[got] = 0;
  const char *p = text;
  for (const char *q = text; *q; q++)
    if (*q == ')') p = q + 1; /* a name may hold anything */
  return *p ? p + 1 : p;
}
static const char *field(const char *p, int number_) { /* the first is the state, which proc(5) counts as the third */
  for (int at = 3; at < number_ && *p; p++) at += *p == ' ';
  return p;
}
#define ENDED "its first process has just ended"
#define EXITING 4 /* PF_EXITING of Linux: it will be a zombie, and shows nothing any more */
enum life { LIVES, ENDS, OVER };
static enum life life_of(int dir) {
  const char *p = stat_of(dir);
  u64 flags = 0;
  if (!p || *p == 'Z' || *p == 'X') return OVER;
  p = field(p, 9);
  return number(&p, &flags) && (flags & EXITING) ? ENDS : LIVES;
}
static void refuse(int dir, const char *a, const char *b, long error) __attribute__((noreturn));
static void refuse(int dir, const char *a, const char *b, long error) {
  /* the end of the first process has many faces; who is told of it starts the sandbox again, once it is over */
  enum life life = LIVES;
  for (int looks = 0; looks < 1000 && (life = life_of(dir)) == ENDS; looks++) {
    u64 pause[2] = {0, 5000000};
    S(ppoll, 0, 0, pause, 0, 8);
  }
  if (life != LIVES) die(ENDED, 0);
  say(a, b, error);
  quit(125);
}
static int verified(const char *pid, const char *start) { /* the directory of exactly that process */
  char path[64] = "/proc/";
  int bad = 0;
  u64 wanted = whole_number(start, &bad), began = 0;
  whole_number(pid, &bad);
  if (bad || length(pid) > 20) die("enter: what is no number", 0);
  put(path + 6, pid);
  long dir = S(openat, AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 0);
  const char *p = dir < 0 ? 0 : stat_of((int)dir);
  if (!p) die(ENDED, 0);
  p = field(p, 22);
  if (!number(&p, &began) || began != wanted) die(ENDED, 0); /* and its number is another's */
  return (int)dir;
}
static int namespace(int dir, const char *name, int needed) {
  long fd = S(openat, dir, name, O_RDONLY | O_CLOEXEC, 0, 0);
  /* who ends shows none of them: the command must not stay in one of the host's for that */
  if (fd < 0 && (needed || life_of(dir) != LIVES)) refuse(dir, "cannot be entered: ", name, fd);
  return (int)fd;
}
static void give_streams(u64 uid) {
  /* what the command opens as /dev/stdout is the pipe or terminal itself, by the rights of its owner. Only these are
   * given away: they are made for this command, while a file or device may be anybody's */
  for (int fd = 0; fd < 3; fd++) {
    struct stat what;
    u8 settings[64];
    if (S3(fstat, fd, &what, 0) != 0) continue;
    int made = S_ISFIFO(what.st_mode) || (S_ISCHR(what.st_mode) && S3(ioctl, fd, TCGETS, settings) == 0);
    if (made && what.st_uid != uid) S3(fchown, fd, uid, -1);
  }
}
static void join(int dir, u64 uid) {
  static const struct {
    const char *name;
    int kind, needed;
  } all[] = {{"ns/mnt", CLONE_NEWNS, 1}, {"ns/pid", CLONE_NEWPID, 1}, {"ns/ipc", CLONE_NEWIPC, 1},
             {"ns/uts", CLONE_NEWUTS, 1}, {"ns/net", CLONE_NEWNET, 0}, {"ns/cgroup", CLONE_NEWCGROUP, 0}};
  if ((u64)S3(geteuid, 0, 0, 0) != uid) {
    give_streams(uid);
    must(S3(setgroups, 0, 0, 0), "setgroups failed");
    must(S3(setresgid, uid, uid, uid), "setresgid failed");
    must(S3(setresuid, uid, uid, uid), "setresuid failed");
    unseen();
  }
  int fds[6], inner = namespace(dir, "ns/user", 1);
  for (int i = 0; i < 6; i++) {
    fds[i] = namespace(dir, all[i].name, all[i].needed);
    /* what it shares with us needs no joining, and allows none */
    u64 here[32], there[32];
    char path[64] = "/proc/self/";
    put(path + 11, all[i].name);
    if (fds[i] >= 0 && S(newfstatat, AT_FDCWD, path, here, 0, 0) == 0 && S3(fstat, fds[i], there, 0) == 0 &&
        here[0] == there[0] && here[1] == there[1])
      S3(close, fds[i], 0, 0), fds[i] = -1;
  }
  if (fds[0] < 0 || fds[1] < 0) refuse(dir, "cannot be entered: it has no namespaces of its own", "", 0);
  /* bubblewrap's namespaces belong to one user namespace, and its processes are in another below that */
  int owner = (int)must(S3(ioctl, fds[0], NS_GET_USERNS, 0), "cannot be entered: the owner of its namespaces");
  must(S3(setns, owner, CLONE_NEWUSER, 0), "cannot be entered: user");
  for (int i = 0; i < 6; i++) {
    long done = fds[i] < 0 ? 0 : S3(setns, fds[i], all[i].kind, 0);
    if (done < 0) refuse(dir, "cannot be entered: ", all[i].name, done);
  }
  long done = S3(setns, inner, CLONE_NEWUSER, 0);
  if (done < 0 && done != -EINVAL) die("cannot be entered: inner user", done); /* EINVAL: it is the same */
  unseen(); /* with new rights we are what fs.suid_dumpable says */
}
static void powerless(void) {
  struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
  for (int i = 0; S(prctl, PR_CAPBSET_DROP, i, 0, 0, 0) == 0; i++) {}
  S(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  must(S3(capset, &head, none, 0), "capabilities");
}

struct words { /* what shall run: a header of decimal length, newline, and strings that end in NUL */
  char *directory, **env, **argv;
};
static struct words read_words(int fd) {
  u64 size = 0;
  char c = 0;
  for (int i = 0;; i++) {
    if (again(fd, &c, 1) != 1 || i > 8) die("the command did not arrive", 0);
    if (c == '\n') break;
    if (c < '0' || c > '9') die("the command did not arrive", 0);
    size = size * 10 + (u64)(c - '0');
  }
  char *body = room(size + 1);
  if (again(fd, body, size) != (long)size || size == 0 || body[size - 1]) die("the command did not arrive", 0);
  u64 count = 0;
  for (u64 i = 0; i < size; i++) count += body[i] == 0;
  char **list = room((count + 4) * sizeof *list);
  int bad = 0;
  struct words w;
  w.directory = body;
  char *p = body + length(body) + 1;
  if (count < 3) die("the command did not arrive", 0);
  u64 variables = whole_number(p, &bad);
  if (bad || variables + 3 > count) die("the command did not arrive", 0);
  p += length(p) + 1;
  w.env = list;
  for (u64 i = 0; i < variables; i++, p += length(p) + 1) *list++ = p;
  list++; /* room for TERM */
  list++;
  w.argv = list;
  for (; p < body + size; p += length(p) + 1) *list++ = p;
  return w;
}
static const char *variable(char **env, const char *name) {
  for (; *env; env++) {
    const char *value = after(*env, name);
    if (value) return value;
  }
  return 0;
}
static long execute(const char *path, struct words *w) {
  long done = S3(execve, path, w->argv, w->env);
  if (done != -ENOEXEC) return done;
  u64 n = 0; /* a script without a first line, as every shell runs it */
  while (w->argv[n]) n++;
  char **words = room((n + 3) * sizeof *words);
  words[0] = "sh";
  words[1] = (char *)path;
  for (u64 i = 1; i <= n; i++) words[i + 1] = w->argv[i];
  return S3(execve, "/bin/sh", words, w->env);
}
static void run(struct words *w) {
  const char *program = w->argv[0], *places = variable(w->env, "PATH=");
  long done = S3(chdir, w->directory, 0, 0);
  token = "sandboxer: ";
  if (done < 0) {
    say(w->directory, ": cannot be entered", done);
    quit(126);
  }
  int path = 0;
  for (const char *s = program; *s; s++) path |= *s == '/';
  long worst = -ENOENT;
  if (path) {
    worst = execute(program, w);
  } else if (places) {
    static char file[8192];
    while (places) {
      char *to = file;
      for (; *places && *places != ':'; places++)
        if (to < file + 4096) *to++ = *places;
      places = *places ? places + 1 : 0;
      if (to == file) *to++ = '.';
      if (length(program) > 4000) continue;
      *to++ = '/';
      put(to, program);
      done = execute(file, w);
      if (done != -ENOENT && done != -ENOTDIR) worst = done;
      if (done != -ENOENT && done != -ENOTDIR && done != -EACCES) break;
    }
  }
  if (worst == -ENOENT || worst == -ENOTDIR) {
    say(program, ": not found", 0);
    quit(127);
  }
  say(program, "", worst);
  quit(126);
}

/* What the waiting parent sees of its child, from the host's /proc: its programs inside can stop it for ever, and who
 * traces it keeps its end from us, too. Neither is an error by itself: debuggers do the first. */
#define LOOK 2   /* seconds from one look to the next */
#define TOLD 5   /* looks after which a stop is told */
#define ENOUGH 3 /* looks after which an end is had in spite of a tracer */
struct watch {
  int proc, err, stopped, kept, told;
  u64 last;
};
static u64 now(void) {
  u64 both[2] = {0, 0};
  S3(clock_gettime, 1, both, 0);
  return both[0];
}
struct seen {
  char state;
  u64 tracer, inside, threads;
};
static struct seen look_at(int proc, u64 pid) {
  static char text[4096];
  char path[48];
  struct seen what = {0, 0, 0, 0};
  put(put_number(path, pid), "/status");
  long fd = S(openat, proc, path, O_RDONLY | O_CLOEXEC, 0, 0);
  long got = fd < 0 ? fd : again((int)fd, text, sizeof text - 1);
  if (fd >= 0) S3(close, fd, 0, 0);
  if (got <= 0) return what;
  text[got] = 0;
  for (const char *p = text, *q; *p; p++) { /* a name holds no newline here */
    if ((q = after(p, "State:\t"))) what.state = *q;
    if ((q = after(p, "TracerPid:\t"))) number(&q, &what.tracer);
    if ((q = after(p, "Threads:\t"))) number(&q, &what.threads);
    if ((q = after(p, "NSpid:\t")))
      while (number(&q, &what.inside) && *q == '\t') q++;
    while (*p && *p != '\n') p++;
    if (!*p) break;
  }
  return what;
}
static void watch(struct watch *w, u64 pid) {
  u64 t = now();
  if (w->proc < 0 || t - w->last < LOOK) return;
  w->last = t;
  struct seen what = look_at(w->proc, pid);
  w->stopped = what.state == 'T' || what.state == 't' ? w->stopped + 1 : 0;
  w->kept = what.state == 'Z' && what.tracer && what.threads <= 1 ? w->kept + 1 : 0;
  if (w->stopped >= TOLD && !w->told && w->err >= 0) {
    char line[200], *p = put(line, "sandboxer: the command is process ");
    p = put(put_number(p, what.inside), " inside, and has been stopped there for ");
    p = put(put_number(p, TOLD * LOOK), what.tracer ? " s by who traces it\n" : " s by a signal (kill -CONT lets it go on)\n");
    struct {
      int fd;
      short wanted, seen;
    } free = {w->err, 4, 0};
    u64 at_once[2] = {0, 0};
    if (S(ppoll, &free, 1, at_once, 0, 8) > 0) S3(write, w->err, line, p - line);
    w->told = 1;
  }
  if (w->kept >= ENOUGH) {
    long tracer = S3(pidfd_open, what.tracer, 0, 0);
    /* still the same after its number was pinned: it is the tracer that is ended, and nobody else */
    if (tracer >= 0 && look_at(w->proc, pid).tracer == what.tracer) S(pidfd_send_signal, tracer, SIGKILL, 0, 0, 0);
    if (tracer >= 0) S3(close, tracer, 0, 0);
  }
}

static void enter(int argc, char **argv, char **envp) {
  unseen();
  close_from(3);
  if (argc < 7 || length(argv[2]) > 100) quit(125);
  static char kept[128];
  put(kept, argv[2]);
  token = kept;
  int bad = 0, tty = !same(argv[6], "-");
  u64 uid = whole_number(argv[5], &bad);
  if (bad) die("enter: what is no number", 0);
  struct filter filter = own_filter();
  long header = 0;
  if (tty) {
    header = must(S(openat, AT_FDCWD, argv[6], O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0, 0), "the command did not arrive");
    S3(unlinkat, AT_FDCWD, argv[6], 0);
  }
  struct words words = read_words((int)header);
  if (tty) {
    const char *term = variable(envp, "TERM=");
    char **end = words.env;
    while (*end) end++;
    if (term && !variable(words.env, "TERM=")) *end = (char *)term - 5;
  }
  int dir = verified(argv[3], argv[4]);
  struct watch watched = {(int)S(openat, AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 0), -1, 0, 0, 0, now()};
  /* everybody inside may read a command line: theirs tells nothing of the host, nor how we tell our own complaints */
  for (int i = 2; i < 7; i++) memset(argv[i], 0, length(argv[i]));
  must(S(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
  own_keyring(filter.n);
  join(dir, uid);
  int life[2], begun[2];
  must(S3(pipe2, life, O_CLOEXEC, 0), "no pipe");
  must(S3(pipe2, begun, O_CLOEXEC, 0), "no pipe");
  block_all();
  long child = fork_();
  if (child < 0) refuse(dir, "no process can be made in it", "", child);
  if (!child) {
    S3(close, life[1], 0, 0);
    /* a group of its own: what a program sends to "its group" must reach nothing of ours */
    must(S3(setpgid, 0, 0, 0), "process group");
    if (tty) {
      int group = (int)S3(getpid, 0, 0, 0);
      S3(ioctl, 0, TIOCSPGRP, &group);
    }
    for (char **word = argv + 7; *word; word++) limit(*word);
    powerless();
    must(S(prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "its end with ours");
    struct {
      int fd;
      short wanted, seen;
    } look = {life[0], 0, 0};
    u64 now[2] = {0, 0};
    if (S(ppoll, &look, 1, now, 0, 8) > 0) quit(137); /* we died before that was set */
    S3(dup3, begun[1], 3, O_CLOEXEC);
    close_from(4);
    load(&filter);
    unblock();
    run(&words);
  }
  S3(close, begun[1], 0, 0);
  int mine = (int)S3(getpgid, 0, 0, 0);
  long terminal = tty ? S3(fcntl, 0, F_DUPFD_CLOEXEC, 10) : -1;
  if (!tty) watched.err = (int)S3(fcntl, 2, F_DUPFD_CLOEXEC, 10);
  for (int fd = 0; fd < 3; fd++) S3(close, fd, 0, 0);
  for (int begins = 1, status;;) {
    u64 all = ~0UL;
    struct {
      int number, rest[31];
    } what;
    u64 pause[2] = {LOOK, 0};
    long sent = S(rt_sigtimedwait, &all, &what, pause, 8, 0);
    watch(&watched, (u64)child);
    if (sent == SIGCHLD) {
      for (long pid; (pid = S(wait4, -1, &status, WNOHANG | WUNTRACED | __WALL, 0, 0)) > 0;) {
        if ((status & 255) == 127) { /* stopped */
          struct {
            int fd;
            short wanted, seen;
          } look = {begun[0], 1, 0};
          u64 now[2] = {0, 0};
          begins = begins && S(ppoll, &look, 1, now, 0, 8) == 0;
          /* before its program has begun, nobody inside has a right to stop it */
          if (pid == child && begins) S3(kill, child, SIGCONT, 0);
        } else if (pid == child) {
          if (terminal >= 0) S3(ioctl, terminal, TIOCSPGRP, &mine);
          quit(code_of(status));
        }
      }
    } else if (sent > 0 && (sent < SIGTTIN - 3 || sent > SIGTTIN + 1)) {
      S3(kill, child, sent, 0);
    }
  }
}

void begin(u64 *stack) {
  int argc = (int)stack[0];
  char **argv = (char **)(stack + 1), **envp = argv + argc + 1;
  if (argc > 1 && same(argv[1], "hold")) hold(argv, envp);
  else if (argc > 1 && same(argv[1], "held")) held(argc, argv, envp);
  else if (argc > 1 && same(argv[1], "init")) init(argv, envp);
  else if (argc > 1 && same(argv[1], "enter")) enter(argc, argv, envp);
  say("guard: it is started by sandboxer alone", "", 0);
  quit(125);
}
