//! x
use std::path::Path;
#[test] fn x() {
 let p = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/pretrain");
 for f in std::fs::read_dir(&p).unwrap() { let f=f.unwrap().path(); match moco_config::load_pretrain(&f,&[]) { Ok(l)=>{ if f.ends_with("moco-v2-in1m-800ep.toml"){println!("{}\n{:?}",l.resolved,l.plan)}}, Err(e)=>println!("{}\n",e.render())}}
 std::env::set_current_dir(p.join("../..")).unwrap();
 for s in ["moco.momentom=1","moco.temperature=-1","moco.temperature=big","moco=3","encoder.arch=resnet51","encoder.stem=cifer","optim.batch_size=100","augment.mean=[1,2]","augment.std=[1,0,1]","augment.crop_scale=[0.5,0.2]","run.steps=-4","run.seed=1.5","run.steps","a b=3","schedule.gamma=0.3","schedule.kind=steps","data.source=cifar10","evaluate.linear_milestones=[3,2]","nope.x=1","run.epochs=3","data.root=","moco.queue_size=99999999999999999999","extends=a.toml", "monitor.bank=3", "log.every_steps=", "=3","moco.temperature=nan"] {
   println!("--- {s}");
   match moco_config::load_pretrain(Path::new("configs/pretrain/default.toml"),&[s.to_string()]) { Ok(l)=>println!("ok {:?} {:?}",l.plan.length,l.data), Err(e)=>println!("{}\n[{e}]",e.render())}
 }
}
