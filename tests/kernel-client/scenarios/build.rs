//! Builds a small C project on the mount, as people do: many short-lived processes that create, read, map and
//! rename files, and `make`, which trusts modification times.

use std::sync::Arc;
use std::time::Duration;

use crate::lab::Lab;
use crate::lab::client::Client;
use crate::lab::server::Server;

const MODULES: u32 = 20;
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn builds_a_c_project() {
    let lab = Arc::new(Lab::new("build"));
    let mut client = Client::boot(&lab, 'a');
    let server = Server::start(&lab);
    client.mount(&server, "mountproto=tcp,nolock");
    client.python(&generator(), LIMIT);

    let first = client.sh_within("cd /mnt/nfs/project && make -j2", LIMIT);
    assert_eq!(first.matches("-c -o").count(), MODULES as usize + 1, "{first}");
    // Each module adds its number to what the ones before made: 0 + 1 + … + 19.
    assert_eq!(client.sh("cd /mnt/nfs/project && ./sum"), "190\n");
    assert_eq!(client.sh("cd /mnt/nfs/project && make -q && echo current"), "current\n");

    client.sh("cd /mnt/nfs/project && sed -i 's/return x + 7;/return x + 1007;/' module7.c");
    let second = client.sh_within("cd /mnt/nfs/project && make && ./sum", LIMIT);
    assert_eq!(second.matches("-c -o").count(), 1, "{second}");
    assert!(second.ends_with("\n1190\n"), "{second}");
    client.sh("cd /mnt/nfs/project && make clean && test ! -e sum && cd .. && rm -r project");
    client.no_complaints();
}

/// A Python program that writes the project.
fn generator() -> String {
    format!(
        r#"
import os
n = {MODULES}
os.mkdir("/mnt/nfs/project")
os.chdir("/mnt/nfs/project")
def put(name, text):
    with open(name, "w") as f:
        f.write(text)
put("modules.h", "".join(f"int add{{i}}(int x);\n" for i in range(n)))
for i in range(n):
    put(f"module{{i}}.c", f'#include "modules.h"\n\nint add{{i}}(int x) {{{{\n    return x + {{i}};\n}}}}\n')
calls = "".join(f"    x = add{{i}}(x);\n" for i in range(n))
put("main.c", f'#include <stdio.h>\n#include "modules.h"\n\nint main(void) {{{{\n    int x = 0;\n{{calls}}'
    '    printf("%d\\n", x);\n    return 0;\n}}\n')
objects = " ".join(f"module{{i}}.o" for i in range(n))
put("Makefile", f"sum: main.o libmodules.a\n\tgcc -o $@ main.o libmodules.a\n"
    f"libmodules.a: {{objects}}\n\trm -f $@\n\tar rcs $@ $^\n"
    "%.o: %.c modules.h\n\tgcc -O1 -c -o $@ $<\n"
    "clean:\n\trm -f sum *.o *.a\n")
"#
    )
}
