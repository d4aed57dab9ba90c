/* make_pictures.c - make_pictures FOLDER: 48 training and 16 test pictures of two classes as JPEG
 * files in class folders, for the tests of the whole program. The classes differ in shape. */
#include <sys/stat.h>

#include "tests/jpeg_writer.h"

int main(int argc, char **argv)
{
    static const char *const parts[] = {"",     "/train",    "/train/tall", "/train/wide",
                                        "/val", "/val/tall", "/val/wide"};
    char path[1024];
    if (argc != 2) return 64;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        snprintf(path, sizeof path, "%s%s", argv[1], parts[i]);
        if (mkdir(path, 0777)) {
            perror(path);
            return 1;
        }
    }
    for (int i = 0; i < 64; i++) {
        snprintf(path, sizeof path, "%s/%s/%s/%02d.jpg", argv[1], i < 48 ? "train" : "val",
                 i % 2 ? "tall" : "wide", i);
        write_jpeg(path, i, i % 2 ? 40 : 60, i % 2 ? 60 : 40, 3);
    }
    return 0;
}
