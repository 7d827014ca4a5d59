// The Python module of a compiled library, dsa_ext._C or dsa_ext._C_cuda: importing it loads the library,
// which registers its operations with torch. The module itself is empty; setup.py passes its name.
#include <Python.h>

#define DSA_TEXT_(x) #x
#define DSA_TEXT(x) DSA_TEXT_(x)
#define DSA_JOIN_(a, b) a##b
#define DSA_JOIN(a, b) DSA_JOIN_(a, b)

PyMODINIT_FUNC DSA_JOIN(PyInit_, TORCH_EXTENSION_NAME)() {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT,
                               DSA_TEXT(TORCH_EXTENSION_NAME),
                               nullptr,
                               -1,
                               nullptr,
                               nullptr,
                               nullptr,
                               nullptr,
                               nullptr};
  return PyModule_Create(&module);
}
