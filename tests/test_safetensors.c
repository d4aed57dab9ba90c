/* test_safetensors.c - what is written reads back; whatever else a file holds is refused. */
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runtime/base/file.h"
#include "runtime/train/safetensors.h"
#include "tests/check.h"

static char folder[] = "/tmp/test_safetensors_XXXXXX", path[80];
static const float weights[6] = {1, 2, 3, -4, 5, 6};
static const int64_t batches = 77;

static ts_status save(const char *word)
{
    const ts_file_tensor tensors[] = {
        {"a.weight", TS_FILE_F32, 2, {2, 3}, sizeof weights, weights},
        {"a.num_batches_tracked", TS_FILE_I64, 0, {0}, sizeof batches, &batches}};
    const ts_file_pair words[] = {{"word", word}};
    return ts_safetensors_save(path, tensors, 2, words, 1);
}

static void write_file(const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void refused(const char *part)
{
    ts_safetensors *file;
    assert_int_equal(ts_safetensors_open(path, &file), TS_EDATA);
    assert_non_null(strstr(ts_trail_message(), path));
    if (!strstr(ts_trail_message(), part))
        fail_msg("\"%s\" is not in \"%s\"", part, ts_trail_message());
}

static void test_round_trip(void **state)
{
    (void)state;
    ts_safetensors *file;
    OK(save("hello"));
    OK(ts_safetensors_open(path, &file));
    const ts_file_tensor *t = ts_safetensors_find(file, "a.weight");
    assert_non_null(t);
    assert_true(t->type == TS_FILE_F32 && t->rank == 2 && t->shape[0] == 2 && t->shape[1] == 3);
    assert_memory_equal(t->data, weights, sizeof weights);
    t = ts_safetensors_find(file, "a.num_batches_tracked");
    assert_true(t && t->rank == 0 && t->bytes == sizeof batches);
    assert_null(ts_safetensors_find(file, "b"));
    assert_string_equal(ts_safetensors_metadata(file, "word"), "hello");
    assert_null(ts_safetensors_metadata(file, "none"));
    ts_safetensors_close(file);
}

static void test_damage(void **state)
{
    (void)state;
    void *read;
    size_t n;
    OK(save("x"));
    OK(ts_file_read(path, &read, &n));
    unsigned char *bytes = read;
    for (size_t cut = 0; cut < n; cut++) {
        write_file(bytes, cut);
        refused("");
    }
    for (size_t i = n - sizeof weights - sizeof batches; i < n; i++) {
        bytes[i] ^= (unsigned char)(1 << i % 8);
        write_file(bytes, n);
        refused("checksum");
        bytes[i] ^= (unsigned char)(1 << i % 8);
    }
    bytes[7] = 0x40; /* a header longer than the file */
    write_file(bytes, n);
    refused("header");
    free(read);
    unlink(path);
    refused("cannot open");
}

/* A file with this header and `data` bytes behind it. */
static void with_header(const char *header, size_t data)
{
    unsigned char bytes[1024] = {0};
    size_t n = strlen(header);
    bytes[0] = (unsigned char)n;
    bytes[1] = (unsigned char)(n >> 8);
    memcpy(bytes + 8, header, n);
    write_file(bytes, 8 + n + data);
}

static void test_bad_headers(void **state)
{
    (void)state;
    with_header("not json at all", 8);
    refused("header");
    with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4);
    refused("\"a\""); /* two elements in four bytes */
    with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 8);
    refused("\"a\""); /* beyond the end */
    with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4);
    refused("\"a\"");
    with_header("{\"a\":{\"dtype\":\"F77\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    refused("F77");
    with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                4);
    refused("overlap");
    with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 9);
    refused("no tensor");
    with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8);
    refused("gaps");
    with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4);
    refused("\"a\"");
    with_header("{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],"
                "\"data_offsets\":[0,0]}}",
                0);
    refused("\"a\""); /* 2^64 elements are not none */
    with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4);
    refused("\"a\"");
    with_header("{\"a\":7}", 0);
    refused("\"a\"");
    with_header("[]", 0);
    refused("header");
    ts_safetensors *file; /* another program's file has no checksum */
    with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    OK(ts_safetensors_open(path, &file));
    ts_safetensors_close(file);
}

static void test_full_disk(void **state)
{
    (void)state;
    ts_safetensors *file;
    char temporary[100];
    struct rlimit limit, small;
    OK(save("before"));
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    getrlimit(RLIMIT_FSIZE, &limit);
    small = limit;
    small.rlim_cur = 100;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    ts_status status = save("after");
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_int_equal(status, TS_EIO);
    assert_non_null(strstr(ts_trail_message(), path));
    assert_false(ts_file_exists(temporary));
    OK(ts_safetensors_open(path, &file));
    assert_string_equal(ts_safetensors_metadata(file, "word"), "before");
    ts_safetensors_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_full_disk),
    };
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/file.safetensors", folder);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)ts_file_remove_folder(folder);
    return failed;
}
