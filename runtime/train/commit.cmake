# commit.cmake - run at each build: OUT says which commit of TOP is built; touched when that changes.
execute_process(COMMAND git -C ${TOP} describe --always --dirty=+ --abbrev=12 --exclude=*
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit)
    set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define TS_COMMIT \"${commit}\"\n")
