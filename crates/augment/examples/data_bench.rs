//! Scratch.
use moco_augment::RgbImage;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args[1] == "dump" {
        for f in &args[2..] {
            let b = std::fs::read(f).unwrap();
            match RgbImage::decode(&b) {
                Ok(i) => { std::fs::write(format!("{f}.rgb"), i.pixels()).unwrap(); }
                Err(e) => println!("{f}: {e}"),
            }
        }
    } else {
        let files: Vec<Vec<u8>> = args[2..].iter().map(|f| std::fs::read(f).unwrap()).collect();
        for _ in 0..5 {
            let t = std::time::Instant::now();
            for f in &files { std::hint::black_box(RgbImage::decode(f).unwrap()); }
            println!("{:.1} us/img", t.elapsed().as_secs_f64() * 1e6 / files.len() as f64);
        }
    }
}
