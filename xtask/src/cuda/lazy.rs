//! Libraries for the linker that hold no code of NVIDIA's: each function looks for the real one when it
//! is first called.
//!
//! A program linked with them needs no CUDA to start. Where a library or a function is missing, the
//! function answers an error code of its library, which cudarc turns into an error with a text.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::commands::{call, source_of};

/// A library that cudarc links.
struct Library {
    /// Its module in cudarc.
    module: &'static str,
    /// Its name for the linker.
    name: &'static str,
    /// The file that is looked for at run time.
    file: &'static str,
    /// What its functions answer if it is missing.
    missing: i32,
    /// The same in words.
    text: &'static str,
}

const LIBRARIES: [Library; 7] = [
    Library {
        module: "driver",
        name: "cuda",
        file: "libcuda.so.1",
        missing: 100,
        text: "libcuda.so.1 not found: no NVIDIA driver on this machine",
    },
    Library {
        module: "cublas",
        name: "cublas",
        file: "libcublas.so.13",
        missing: 1,
        text: "libcublas.so.13 not found",
    },
    Library {
        module: "cublaslt",
        name: "cublasLt",
        file: "libcublasLt.so.13",
        missing: 1,
        text: "libcublasLt.so.13 not found",
    },
    Library {
        module: "curand",
        name: "curand",
        file: "libcurand.so.10",
        missing: 203,
        text: "libcurand.so.10 not found",
    },
    Library {
        module: "nvrtc",
        name: "nvrtc",
        file: "libnvrtc.so.13",
        missing: 11,
        text: "libnvrtc.so.13 not found",
    },
    Library {
        module: "cudnn",
        name: "cudnn",
        file: "libcudnn.so.9",
        missing: 1001,
        text: "libcudnn.so.9 not found",
    },
    Library {
        module: "nccl",
        name: "nccl",
        file: "libnccl.so.2",
        missing: 2,
        text: "libnccl.so.2 not found",
    },
];

/// What a function answers if its library is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The library's error code.
    Code,
    /// A text.
    Text,
    /// Zero: a version or a size.
    Zero,
    /// A code, after it has written a text through its second parameter.
    TextThroughPointer,
}

/// A function as cudarc declares it.
#[derive(Debug, PartialEq, Eq)]
struct Function<'a> {
    name: &'a str,
    answer: Answer,
}

/// Writes the libraries into `folder`, unless they are those of this program and of this cudarc.
pub(crate) fn install(folder: &Path) -> anyhow::Result<()> {
    let cudarc = source_of("cudarc")?;
    let stamp = folder.join("made-from");
    let version = cudarc.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let made_from = format!("{version}\n{}", include_str!("lazy.rs"));
    if fs::read_to_string(&stamp).is_ok_and(|found| found == made_from) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    for library in &LIBRARIES {
        let source = cudarc.join("src").join(library.module).join("sys").join("mod.rs");
        let source =
            fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
        let functions = functions(&source);
        if functions.is_empty() {
            bail!("cudarc declares no function of {}", library.name);
        }
        let object = |name: &str, text: &str| -> anyhow::Result<_> {
            let (code, object) = (
                folder.join(name),
                folder.join(name).with_extension(format!("{}.o", &name[name.len() - 1..])),
            );
            fs::write(&code, text).with_context(|| format!("writing {}", code.display()))?;
            run(Command::new("cc")
                .args(["-O2", "-fPIC", "-Wall", "-c"])
                .arg(&code)
                .arg("-o")
                .arg(&object))?;
            Ok(object)
        };
        let parts = [
            object(&format!("{}.c", library.name), &finder(library, &functions))?,
            object(&format!("{}.s", library.name), &entries(library, &functions))?,
        ];
        let archive = folder.join(format!("lib{}.a", library.name));
        run(Command::new("ar").arg("crs").arg(archive).args(parts))?;
    }
    // candle asks for the run-time library on behalf of kernels that the stand-in compiler leaves out.
    run(Command::new("ar").arg("crs").arg(folder.join("libcudart.a")))?;
    fs::write(&stamp, made_from).with_context(|| format!("writing {}", stamp.display()))
}

/// Runs a tool of the C compiler's.
fn run(tool: &mut Command) -> anyhow::Result<()> {
    call(tool).context("gcc and binutils are needed (Debian: apt-get install -y gcc binutils)")
}

/// The functions that a `sys` module of cudarc binds, each once.
fn functions(source: &str) -> Vec<Function<'_>> {
    let mut found: Vec<Function<'_>> = source
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("pub unsafe fn ")?.split_once('(')?;
            let returned = rest.rsplit_once("->").map_or("()", |(_, returned)| returned);
            let returned = returned.trim().trim_end_matches('{').trim();
            // These two belong to cudarc's other way of linking.
            let foreign = ["culib", "is_culib_present"].contains(&name);
            (!foreign).then(|| Function { name, answer: answer(name, returned) })
        })
        .collect();
    found.sort_unstable_by_key(|function| function.name);
    found.dedup_by_key(|function| function.name);
    found
}

fn answer(name: &str, returned: &str) -> Answer {
    if ["cuGetErrorName", "cuGetErrorString"].contains(&name) {
        Answer::TextThroughPointer
    } else if returned.ends_with("c_char") {
        Answer::Text
    } else if ["()", "usize", "u32", "u64"].contains(&returned) {
        Answer::Zero
    } else {
        Answer::Code
    }
}

/// The C side: finds a function by its number.
fn finder(library: &Library, functions: &[Function<'_>]) -> String {
    let Library { name, file, missing, text, .. } = library;
    let mut code = format!(
        "#include <dlfcn.h>\n\
         static const char text[] = \"{text}\";\n\
         static long answer_code(void) {{ return {missing}; }}\n\
         static long answer_zero(void) {{ return 0; }}\n\
         static const char *answer_text(void) {{ return text; }}\n\
         static long answer_text_through_pointer(int code, const char **to) \
         {{ (void)code; *to = text; return 0; }}\n\
         struct function {{ const char *name; void *answer; }};\n\
         static const struct function functions[] = {{\n"
    );
    for Function { name, answer } in functions {
        let answer = match answer {
            Answer::Code => "answer_code",
            Answer::Text => "answer_text",
            Answer::Zero => "answer_zero",
            Answer::TextThroughPointer => "answer_text_through_pointer",
        };
        // Writing to a string cannot fail.
        let written = writeln!(code, "    {{\"{name}\", (void *){answer}}},");
        debug_assert!(written.is_ok(), "a string takes any text");
    }
    code += &format!(
        "}};\n\
         extern __attribute__((visibility(\"hidden\"))) void *moco_found_{name}[];\n\
         __attribute__((visibility(\"hidden\"))) void *moco_find_{name}(long number) {{\n\
         \x20   static void *library;\n\
         \x20   if (!library) library = dlopen(\"{file}\", RTLD_NOW | RTLD_GLOBAL);\n\
         \x20   void *found = library ? dlsym(library, functions[number].name) : 0;\n\
         \x20   if (!found) found = functions[number].answer;\n\
         \x20   __atomic_store_n(&moco_found_{name}[number], found, __ATOMIC_RELEASE);\n\
         \x20   return found;\n\
         }}\n"
    );
    code
}

/// The assembler side: a function jumps to what was found, or has it found with its arguments kept.
fn entries(library: &Library, functions: &[Function<'_>]) -> String {
    let name = library.name;
    let mut code = String::from("    .text\n");
    for (number, Function { name: function, .. }) in functions.iter().enumerate() {
        code += &format!(
            "    .globl {function}\n    .type {function}, @function\n{function}:\n    \
             movq moco_found_{name}+{offset}(%rip), %r11\n    \
             testq %r11, %r11\n    je 1f\n    jmp *%r11\n\
             1:  movl ${number}, %r11d\n    jmp first_call\n",
            offset = 8 * number
        );
    }
    let integers = ["rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax"];
    code += "first_call:\n";
    for register in integers {
        code += &format!("    pushq %{register}\n");
    }
    // Seven registers and the return address: the stack is aligned to 16 bytes again.
    code += "    subq $128, %rsp\n";
    for vector in 0..8 {
        code += &format!("    movups %xmm{vector}, {}(%rsp)\n", 16 * vector);
    }
    code += &format!("    movq %r11, %rdi\n    call moco_find_{name}\n    movq %rax, %r11\n");
    for vector in 0..8 {
        code += &format!("    movups {}(%rsp), %xmm{vector}\n", 16 * vector);
    }
    code += "    addq $128, %rsp\n";
    for register in integers.iter().rev() {
        code += &format!("    popq %{register}\n");
    }
    code += &format!(
        "    jmp *%r11\n\n    .bss\n    .balign 8\n    .globl moco_found_{name}\n    \
         .hidden moco_found_{name}\nmoco_found_{name}:\n    .zero {}\n    \
         .section .note.GNU-stack,\"\",@progbits\n",
        8 * functions.len()
    );
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
pub unsafe fn cudnnGetVersion() -> usize {
pub unsafe fn cudnnCreate(handle: *mut cudnnHandle_t) -> cudnnStatus_t {
pub unsafe fn cudnnGetErrorString(status: cudnnStatus_t) -> *const ::core::ffi::c_char {
pub unsafe fn cuGetErrorName(error: CUresult, pStr: *mut *const ::core::ffi::c_char) -> CUresult {
pub unsafe fn nothing(handle: i32) {
pub unsafe fn culib() -> &'static Lib {
pub unsafe fn cudnnCreate(handle: *mut cudnnHandle_t) -> cudnnStatus_t {
";

    #[test]
    fn functions_and_what_they_answer_are_read() {
        let expected = [
            ("cuGetErrorName", Answer::TextThroughPointer),
            ("cudnnCreate", Answer::Code),
            ("cudnnGetErrorString", Answer::Text),
            ("cudnnGetVersion", Answer::Zero),
            ("nothing", Answer::Zero),
        ];
        assert_eq!(functions(SOURCE), expected.map(|(name, answer)| Function { name, answer }));
    }

    /// A program linked with a made-up library runs without it, and calls the real one where it is.
    #[test]
    fn a_missing_library_answers_and_a_present_one_is_called() {
        let folder = std::env::temp_dir().join(format!("moco-lazy-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("libsample.so.1");
        let library = Library {
            module: "",
            name: "sample",
            file: file.to_str().unwrap().to_owned().leak(),
            missing: 77,
            text: "sample is missing",
        };
        let functions = [
            Function { name: "mixed", answer: Answer::Code },
            Function { name: "words", answer: Answer::Text },
        ];
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("finder.c", &finder(&library, &functions));
        write("entries.s", &entries(&library, &functions));
        write(
            "main.c",
            "#include <stdio.h>\nint mixed(int, double, long, float, int, int, int, int);\n\
             const char *words(void);\n\
             int main(void) { int x = mixed(1, 2.5, 3, 4.5f, 5, 6, 7, 8);\n\
             printf(\"%d %d %s\", x, mixed(1, 2.5, 3, 4.5f, 5, 6, 7, 9), words()); return 0; }\n",
        );
        write(
            "real.c",
            "int mixed(int a, double b, long c, float d, int e, int f, int g, int h)\n\
             { return (int)(10 * b) + (int)(10 * d) + a + (int)c + e + f + g + h; }\n",
        );
        let cc = |args: &[&str]| run(Command::new("cc").args(args).current_dir(&folder)).unwrap();
        cc(&["main.c", "finder.c", "entries.s", "-o", "main", "-ldl"]);
        let output = || {
            let output = Command::new(folder.join("main")).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(output(), "77 77 sample is missing");
        cc(&["-shared", "-fPIC", "real.c", "-o", "libsample.so.1"]);
        // The library has one of the two functions.
        assert_eq!(output(), "100 101 sample is missing");
        fs::remove_dir_all(&folder).unwrap();
    }
}
