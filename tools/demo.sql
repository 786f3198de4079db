-- The demonstration's work: a table and indexes of over 600 MB in memory, then queries that walk and jump through them.
-- Everything is computed from row numbers, so every run prints the same. '.print -- ' lines are shown as progress.
.output /dev/null
pragma journal_mode=off;
pragma temp_store=memory;
.output
.print -- filling 460,000 orders
create table orders(id integer primary key, customer integer, amount integer, note text);
with recursive n(i) as (select 1 union all select i+1 from n where i < 460000)
insert into orders
  select i, (i*2654435761) % 1000003 % 50000, (i*40503) % 65521,
         printf('%s%s%s%s', hex(i*i), replace(hex(zeroblob(300)), '00', printf('%04x', i % 65536)),
                printf('%x', (i*2654435761) % 4294967296), i)
  from n;
.print -- indexing by customer
create index by_customer on orders(customer, amount);
.print -- indexing by amount, with the id
create index by_amount on orders(amount desc, id, customer);
.print -- size of the database
select 'database: ' || (page_count * page_size / 1000000) || ' MB' from pragma_page_count, pragma_page_size;
select 'over 600 MB: ' || iif(page_count * page_size >= 600000000, 'yes', 'NO') from pragma_page_count, pragma_page_size;
.print -- totals in the order of the table
select 'orders: ' || count(*) || ', amounts: ' || sum(amount) || ', letters: ' || sum(length(note)) from orders;
.print -- the ten best customers, by index
select 'customer ' || customer || ': ' || count(*) || ' orders, ' || sum(amount)
  from orders group by customer order by sum(amount) desc, customer limit 5;
.print -- 30,000 orders at random
with recursive r(k, x) as (select 1, 12345 union all select k+1, (x*1103515245 + 12345) % 2147483648 from r where k < 30000)
select 'random notes: ' || sum(length(note) + unicode(substr(note, 2))) || ', amounts: ' || sum(amount)
  from r join orders on id = 1 + x % 460000;
.print -- changing every seventh order
update orders set amount = amount + 1, note = 'changed ' || note where id % 7 = 0;
delete from orders where id % 101 = 0;
.print -- joining the dearest with their customers
select 'dearest: ' || sum(a.amount) || ' over ' || count(*)
  from (select id, customer, amount from orders order by amount desc, id limit 2000) a
  join orders b on b.customer = a.customer;
.print -- checking every page
pragma integrity_check;
.print -- hashing every row
.sha3sum orders
