//! Builds a small C project on the mount, as people do, fresh and from a git repository: many short-lived processes that create, read, map and
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
    client.python(&generator("/mnt/nfs/project"), LIMIT);
    build(&mut client);
    client.sh("cd /mnt/nfs/project && make clean && test ! -e sum && cd .. && rm -r project");
    client.no_complaints();
}

/// git writes files under other names, renames and links them, makes them read-only, maps its packs, locks by exclusive creation, and
/// finds what changed by times and inode numbers.
#[test]
fn clones_a_repository_and_builds_it() {
    let lab = Arc::new(Lab::new("git"));
    let mut client = Client::boot(&lab, 'a');
    let server = Server::start(&lab);
    client.mount4(&server, "4.2", "/mnt/nfs");
    client.python(&generator("/tmp/origin"), LIMIT);
    client.sh_within(HISTORY, LIMIT);
    client.sh_within("git clone --quiet --no-local /tmp/origin /mnt/nfs/project", LIMIT);
    build(&mut client);
    let changed = client.sh("cd /mnt/nfs/project && git status --porcelain --untracked-files=no");
    assert_eq!(changed, " M module7.c\n");
    let other = "cd /mnt/nfs/project && git stash --quiet && git checkout --quiet other && make -s && ./sum";
    assert_eq!(client.sh_within(other, LIMIT), "5190\n");
    let kept = "cd /mnt/nfs/project && git checkout --quiet main && git stash pop --quiet && \
                git commit --quiet -am 'seven' && git gc --quiet && git fsck --strict --no-progress --no-dangling && \
                git push --quiet origin HEAD:seven && git -C /tmp/origin log -1 --format=%s seven && git status --porcelain -uno";
    assert_eq!(client.sh_within(kept, LIMIT), "seven\n");
    client.sh("rm -r /mnt/nfs/project");
    client.no_complaints();
}

/// A hundred commits, and a branch beside them.
const HISTORY: &str = "
cd /tmp/origin
git config --global user.email test@example.org
git config --global user.name Test
git init --quiet --initial-branch main
git add .
git commit --quiet -m project
for i in $(seq 100); do
    echo \"note $i\" >> notes
    git add notes
    git commit --quiet -m \"note $i\"
done
git checkout --quiet -b other
sed -i 's/return x + 5;/return x + 5005;/' module5.c
git commit --quiet -am other
git checkout --quiet main
";

/// Builds what is in `/mnt/nfs/project`, changes a module, and builds what depends on it.
fn build(client: &mut Client) {
    let first = client.sh_within("cd /mnt/nfs/project && make -j2", LIMIT);
    assert_eq!(first.matches("-c -o").count(), MODULES as usize + 1, "{first}");
    // Each module adds its number to what the ones before made: 0 + 1 + … + 19.
    assert_eq!(client.sh("cd /mnt/nfs/project && ./sum"), "190\n");
    assert_eq!(client.sh("cd /mnt/nfs/project && make -q && echo current"), "current\n");

    client.sh("cd /mnt/nfs/project && sed -i 's/return x + 7;/return x + 1007;/' module7.c");
    let second = client.sh_within("cd /mnt/nfs/project && make && ./sum", LIMIT);
    assert_eq!(second.matches("-c -o").count(), 1, "{second}");
    assert!(second.ends_with("\n1190\n"), "{second}");
}

/// A Python program that writes the project into a new folder.
fn generator(dir: &str) -> String {
    format!(
        r#"
import os
n = {MODULES}
os.mkdir("{dir}")
os.chdir("{dir}")
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
