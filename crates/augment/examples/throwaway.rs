//! throwaway
use moco_augment::*; use moco_rng::*; use std::time::Instant;
fn main(){
 let a: Vec<String> = std::env::args().collect();
 if a.len()>1 && a[1]=="jpeg" {
  for f in std::fs::read_dir("/tmp/aug/j").unwrap(){ let p=f.unwrap().path(); if p.extension().unwrap()!="jpg"{continue;}
   let im=RgbImage::decode(&std::fs::read(&p).unwrap()).unwrap(); let r=std::fs::read(p.with_extension("rgb")).unwrap();
   let d:Vec<u8>=im.pixels().iter().zip(&r).map(|(a,b)|a.abs_diff(*b)).collect();
   println!("{:30} max {:3} mean {:.3} off {:.3}",p.file_name().unwrap().to_str().unwrap(),d.iter().max().unwrap(),d.iter().map(|x|*x as f64).sum::<f64>()/d.len() as f64,d.iter().filter(|x|**x>0).count() as f64/d.len() as f64);
  } return; }
 for (w,h,s,kinds) in [(48u32,48u32,32u32,vec![RecipeKind::V1,RecipeKind::V2,RecipeKind::Cifar,RecipeKind::LinearTrain,RecipeKind::Eval{resize:32}]),(500,375,224,vec![RecipeKind::V1,RecipeKind::V2,RecipeKind::Cifar,RecipeKind::LinearTrain,RecipeKind::Eval{resize:256}])] {
  let px:Vec<u8>=(0..w*h*3).map(|i|{let i=i as u64; ((i*2654435761%4294967296)>>24) as u8}).collect();
  let im=RgbImage::new(w,h,px).unwrap();
  for k in kinds { let r=Recipe::new(RecipeConfig{image_size:s,crop_scale:(0.2,1.0),kind:k}).unwrap();
   let n= if w<100 {500} else {25}; let mut best=f64::MAX; let mut sink=0u64;
   for _ in 0..16 { let t=Instant::now(); for i in 0..n { let v=r.view(&im,Seed(1).stream(Purpose::Augment,At::index(i))).unwrap(); sink+=v.pixels()[0] as u64;} best=best.min(t.elapsed().as_secs_f64()/n as f64*1e6);}
   println!("{w}x{h}->{s} {k:?}: {best:.1} us/view ({sink})"); }
  // single ops
  let sq=resized_crop(&im,&CropBox::whole(w,h),s).unwrap(); let n= if w<100{200}else{4};
  let time=|name:&str,f:&dyn Fn(&mut RgbImage)|{ let mut b=f64::MAX; for _ in 0..40 {let mut x=sq.clone(); let t=Instant::now(); for _ in 0..n { f(&mut x);} b=b.min(t.elapsed().as_secs_f64()/n as f64*1e6);} println!("   {name}: {b:.1} us"); };
  time("crop+resize whole",&|_|{std::hint::black_box(resized_crop(&im,&CropBox::whole(w,h),s).unwrap());});
  time("brightness",&|x|adjust_brightness(x,0.99)); time("contrast",&|x|adjust_contrast(x,0.99)); time("saturation",&|x|adjust_saturation(x,0.99));
  time("hue",&|x|{let mut y=sq.clone(); adjust_hue(&mut y,0.05); std::hint::black_box((x,y));}); time("gray",&|x|grayscale(x)); time("blur .5",&|x|gaussian_blur(x,0.5)); time("blur 1.5",&|x|gaussian_blur(x,1.5)); time("flip",&|x|flip_horizontal(x));
 }
}
