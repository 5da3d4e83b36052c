//! Scratch.
use moco_augment::*;
use moco_rng::{At, Purpose, Seed};
use std::time::Instant;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let files: Vec<Vec<u8>> = args[2..].iter().map(|f| std::fs::read(f).unwrap()).collect();
    if args[1] == "dump" {
        for (f, b) in args[2..].iter().zip(&files) {
            match RgbImage::decode(b) {
                Ok(i) => { std::fs::write(format!("{f}.rgb"), i.pixels()).unwrap(); }
                Err(e) => println!("{f}: {e}"),
            }
        }
        return;
    }
    let recipe = Recipe::new(RecipeConfig { image_size: 224, crop_scale: (0.2, 1.0), kind: RecipeKind::V2 }).unwrap();
    for _ in 0..5 {
        let mut t = std::collections::BTreeMap::<&str, f64>::new();
        let all = Instant::now();
        for (i, f) in files.iter().enumerate() {
            let s = Instant::now();
            let image = RgbImage::decode(f).unwrap();
            *t.entry("0decode").or_default() += s.elapsed().as_secs_f64();
            for view in 0..2 {
                let d = recipe.draw(image.width(), image.height(), Seed(1).stream(Purpose::Augment, At { epoch: 0, index: i as u64, view }));
                let s = Instant::now();
                let mut v = d.frame.apply(&image, 224).unwrap();
                *t.entry("1crop").or_default() += s.elapsed().as_secs_f64();
                for step in &d.steps {
                    if let Step::Jitter(j) = step {
                        let s = Instant::now();
                        let mut w = v.clone();
                        adjust_hue(&mut w, j.hue);
                        *t.entry("(hue)").or_default() += s.elapsed().as_secs_f64();
                    }
                    let s = Instant::now();
                    step.apply(&mut v);
                    let n = match step { Step::Jitter(_) => "2jitter", Step::Grayscale => "3gray", Step::Blur {..} => "4blur", Step::Flip => "5flip" };
                    *t.entry(n).or_default() += s.elapsed().as_secs_f64();
                }
                std::hint::black_box(v);
            }
        }
        let _ = all;
        let n = files.len() as f64;
        for (k, v) in &t { print!("{k} {:.0}  ", v * 1e6 / n); }
        let s = Instant::now();
        for (i, f) in files.iter().enumerate() {
            let image = RgbImage::decode(f).unwrap();
            for view in 0..2 {
                let v = recipe.view(&image, Seed(1).stream(Purpose::Augment, At { epoch: 0, index: i as u64, view })).unwrap();
                std::hint::black_box(v);
            }
        }
        println!(" total {:.0}", s.elapsed().as_secs_f64() * 1e6 / n);
    }
}
