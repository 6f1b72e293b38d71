;; The program of a worker's self-test. Its output: FNV-1a (32 bits) of the 16 bytes of input, four zeros,
;; and the square root of that hash as f64; little-endian. `program.wasm` is this text, assembled.
(module
  (memory (export "memory") 1 2)
  (func (export "alloc") (param i32) (result i32) i32.const 1024)
  (func (export "init") (param i32 i32))
  (func (export "step") (result i32) (local $at i32) (local $hash i32)
    (local.set $hash (i32.const 0x811c9dc5))
    (loop $more
      (local.set $hash
        (i32.mul
          (i32.xor (local.get $hash) (i32.load8_u offset=1024 (local.get $at)))
          (i32.const 16777619)))
      (br_if $more
        (i32.lt_u
          (local.tee $at (i32.add (local.get $at) (i32.const 1)))
          (i32.const 16))))
    (i32.store (i32.const 0) (local.get $hash))
    (f64.store offset=8 (i32.const 0) (f64.sqrt (f64.convert_i32_u (local.get $hash))))
    i32.const 1)
  (func (export "out_ptr") (result i32) i32.const 0)
  (func (export "out_len") (result i32) i32.const 16))
