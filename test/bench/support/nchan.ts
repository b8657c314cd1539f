/** Where Debian's package has nginx's module. */
export const nchanModule = "/usr/lib/nginx/modules/ngx_nchan_module.so"
