-- What 0001 says of published windows for SQLite, for PostgreSQL.
/*pg*/
create function str_aux.refuse() returns trigger language plpgsql as
'begin raise exception using errcode = ''WB001'', message = tg_argv[0]; end';
create trigger windows_stay before update or delete on str_aux.windows for each row
  execute function str_aux.refuse('a published window is immutable: correct it with a new version');
create trigger windows_remain before truncate on str_aux.windows for each statement
  execute function str_aux.refuse('a published window is immutable: correct it with a new version');
create trigger window_stats_stay before update or delete on str_aux.window_stats for each row
  execute function str_aux.refuse('a published window is immutable: correct it with a new version');
create trigger window_stats_remain before truncate on str_aux.window_stats for each statement
  execute function str_aux.refuse('a published window is immutable: correct it with a new version');
create trigger window_vectors_stay before update or delete on str_aux.window_vectors for each row
  execute function str_aux.refuse('a published window is immutable: correct it with a new version');
create trigger window_vectors_remain before truncate on str_aux.window_vectors for each statement
  execute function str_aux.refuse('a published window is immutable: correct it with a new version');
/*end*/
