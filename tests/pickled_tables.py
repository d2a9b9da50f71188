"""The same small table as several pandas wrote it: zlib, base 85.

DataFrame({"n": [1, 2], "file_name": ["a.png", "b.png"],
           "value": [array([[1., 2], [3, 4]]), array([[5., -1], [7, 8]])]})
"""

#: (pandas, type of file_name, protocol) -> the file
TABLES = {
    ("0.25.3", "object", 2): (
        r"c-nPT=~mM~6i$mE21VR=1lQmat)il+)D6W*(Q%7QjgxffRNJ&)GEq@`j{X4TZF~dI(FfC+Ny-tI`H{IZ_kQ19a_@Y~2Q3;_X"
        r"lw_~h}p9dZ7}mX6?9TdFh)Kj*GArQyA8weDpG^46_8peSQOHFY&U2~t1ODmtMz8^dOAIsSS2aCtulJ7KX4WHj>Wc5V`h3Gd+"
        r"SZ98xyPlZ<bl~wz0-?SIK~MJZ2Ckjn-Uh-$?4BMx%(%nO?+#W*Cbo351Eh)XJ39T8p)gF^_eD7c?s@h)otM!9>5Clf*vOyFG"
        r"HRQ&9^G7+Amtf{lyVM6lU%a!%Jgwq%4AG1ro~t!`f0&x~Q)(w9YSC)i;*U7G77c9u$|+dt*fA7?^fm%miTZcFP!>~Yt~eYRF"
        r"-UMS0sL0#=Pw4N~RWdcLK&Q|M&OUVNE5$xyxE>uLrDl>`tX5~82#zBh@mo#ZCXe4mRF*IW=nk^i5^4Wp4Ad{2)BLqiS8AmPN"
        r"$90{Kahd#a0$U}YbMgx~!PAUuV>qcYE)bmRWPA~)S7vMojQUHw-yM)zWuaC++i`}=`ko~?CotxBJf2q`FA$6?k9p<sBHtm4b"
        r"}4N|YPZ5FE^FD>@<az&RLCm?SC^63vRG%wa9zcEgJ4p|%Kwh?rjByh=&T=KCo-v+ZoSz)P{b`2_7uTw0cSbvJIeVqL223f44"
        r"+h-`<6L37dzbFzopXd>}IHlyNdK40TH<G%U}P%m;d3R#aDCL^^YuWb{sucj$DE#`j5=xsjkj5zK04t_qlG9GQo=!>HUU$sgR"
        r"Vw*CEa$(8!9#2f1oCmVsvps;mvJ=isDW7_|$iwec#QJSuw)uX&Hw`fA`~)XQjCZG@J-)a@Ii$!)h+9vjujlV&kmf#>;2O^#{"
        r"kd1hR%1#)`e7%GiLL<DithOl^(kMkCX8aAa!2;L+ti3Q%K)8NUu!#h1W>KV{a7v}WYYcN6e+wi`O4~cL80y=Aang"
    ),
    ("1.2.5", "string", 5): (
        r"c-oazPfrvv6yF(ka0Q8AAc!#p59)H6NaBHm1_U(GjcbB2@j{x;Zf84jrn{MT#7!j8!y;(og(qLf@8T!m8|Z7Nn+!r?>|x%U_"
        r"Wk|!_xdUL@vC05OV16c=u#PW`Z){ZoMsI4)g7wnGpnD#>Ss8BrmmB$mxErenkPcBT+md885Ok0atZp{R@(2pds+UM?#(^)zj"
        r"@xV%RVp}MpR<DDI(ZDd2aU5flupTtlPw0EC%#~D6+w@bkB-ZB{a|J5c83ob^1c8yyz%&(SbDteFf85lM`swMzHNg@CA0E+45"
        r"QwBj5`<=&Iqsbg2DT>u`Kjo=#}*BedJ?7r$}YPisR#bZmO?1Y#2>DI>z-6uhTt!GPhpuG_74afng)j9$8|-JFV^>37%2N{@W"
        r"CtpllOuCP>Hm#RO2mTwe>if3aoQ^1W12&l3=>42Ulao*3OB91NK&C}WPYHOa8zLUV0wV#}8_0eCg*02=>$Ug+_ZG$qs%=1Nq"
        r"A72`yXOH<Eg9u-5p03oY>ukd*o26(tIlF1I$Cd2-@g=!^8+_Adz7Txg1v~p$%G>UL1%tP$uJ%T5Rj<HOL54_^MDz%P_S$Ms9"
        r"77z*CrQZ({$^~j<2Zr_x<SU2x(JFta**hNh6B+<azs{|Qi{mj9-raY&1KJB0;%)ncPW}99UP7R?Qs8p9qv^f*a7It2jSYoaI"
        r"Ks*iZlg2r6(gZ#S*Y=i;E>Xo^0s`J_7^~anu`8k>DT-R0EkN9cD+(Br{nHQ^{BUlz-#j@opy0?Y_0U2%Fnwg|tIN5N@0?GxF"
        r"oNh-6Gr`v&Y`9;y_+GNx=2r?h9)MVhAleM!2-0IQ&ik(5R(m2f1BDEtG``piB"
    ),
    ("1.3.5", "object", 4): (
        r"c-noF&u`N(6vvyiffdj+5HKbt)B}f&L(d=~ZDN1~6+zkoahal*#H}M7CvqG{B__dPWs`iH`Fr>i_*eEHz<W;0I#exH^K9q+_"
        r"&odTZ@r(tyB+tK+a<^ps$o(nHXJL+nKk{Fpy9O}pV{s2_Q-CTUX)LiHIEkEGpU)9AgW;w5++Pl*4%m_isaL~W{%;eKdxn>i$"
        r"dVX>m?|ifuQxx<(Xm%N7ue&hmo70^ReBxTYPo<$eNx^v)qpSD%3VM_hg-y(<Vn=3(Tz)Opzi|EGcBARh?+67C1*Fz?#nG%#J"
        r"$8cF&9L4@y4r@aNAgUpGOjrzLf6{OqYcJ!!sojrZJ!VfgkBKJGQ@Ai?S0n%C@P$8W7Au$8#Z5JzGsK_#+;xq?)M(#`PCZ}Qc"
        r"PzWANCC4Qf85E*|s=kgub!1(Vk(R}@nW`}4F@T3A5mU4o1V`r~OI9^D|A1`Ze(6n^E)AqL8n3dM9?b<7lU;T@}+xnmXYV2k^"
        r"AGml%Ii6rx_hNTumRfmmStBX?!cZYlp+;{+B#<|>hFi-&m|#A3YE4nWOIq*Z<eA$gPm(k<!6NB2AAAN;GfOO}F<J_1cT6A6#"
        r"xe>8azYsUWEV>Fafm0bQRjHxrdR2rM77d@;lOh_8NKjEq0SJ3Q0Esf%9#eoet<}zHC`zc{k3Q;VB&`BAVhIkMQL54tU$9!K+"
        r"N!Rom6!^{0ry~ZIA"
    ),
    ("2.2.3", "object", 5): (
        r"c-n1K&2H2%5Z>%=pwJ4IA1zcuRWFF`CB625)QTbmjT)q$xKx&tbv98QC$b$%B`U#zrImbR=p*nNyi(twjGe4Vp+0!V&dfKTC"
        r"*OSWfBqWu+%gX;DyCEgNhw*7N?I^5cV1IX-#GsVY<z`Nn3y3cW)jR=H#`@bNkO>^3M%M~Nd;!*6)%&c{pO76X53~Fp2zBM3Y"
        r"hz(7FC`caYkaBV}l=wx~NV9;^5I|GEcxPlT?;PT&JmnoLr0=@;$G${nmo<9RS*?KB+8y)6ciy{Omg%z$6?P?<GW0w0DKeZDC"
        r"JC9C~4Y4#wLBjbUafu5+$)fgF9s^Tfi0Jq+?JO4zr1wrs{-u0@R*R7#4qSBPXuDU_CVqA@ocncLU`_t7GKgIzC%h7ne_wX=t"
        r"&|Na`!&;Rh;MxN(~_#=E8RAPqIVrR2^lZ*9UcU^9`&Q4>NT07ctWztTWY<xpA8bYhK75{@jZow{pH}+Y3UPth)ZYo2lYz^Nx"
        r"=(cSR_6bj~i)hL|F%`sAq4e$&!H&s0duKcM*7ytGiExU-gzS0t!gev+SoCm!hfUWVPoR9$95p4Jl>LvC*UYgoLw6O`bNjMAv"
        r"w9N?NyW_4IIy-;I{Ofz7&Mg{f1nvET~_!c>o9aYhso@QgM!LK5|-*>o=Cwob=(h;64e?f<rK^<l5#q8?i0#+d928^u26AQGs"
        r"0=ia7@lr9S45^)=*d9"
    ),
    ("3.1.1", "str", 4): (
        r"c-n<iTWi!n6y9W$+KbvsMf<R5@u>v~`X(auwkS3ju|Ah!lFTMylS!CN+%8zuhi+S#w~oKZzf|9R(=(IA?rOyZ=FH`M=bZ0cK"
        r"3iX1tD`?LS6~|AQi_E>=J+MU8Ic!q^NT!|8^S_a#H4so>o`Hqh?7uG7{zJnWSHWJFu>m2P4i&*ral8)+-ndhP5kl-BE>SQXp"
        r"scNlptSWv@)%-V(cJoKC4omV8-wm%pyjDoR*wb0au!~)|BD~7}qKn((RncJ;Rr$@<4952K?qk#>>JE`M6M2gqb{(=V$eMR~R"
        r"p(=Xv`-;nR!T;nF|fTQTZ<bj(IdxEAw%l|VQY0=LUF35a&6yeM<7sn&Q&tj@62kpZHIP%%Eb;_LNy)XOdoh9p#h-D+ShVCg+"
        r")35|9dX8RB4zFVGl(P`iMEvdO;%;TKOSD${=@lKT9?f8z$N4(l*!-T_{FyGE(;Nu?|*isodgmT;1DQE;-eJu&xPoy6|Qif(J"
        r"|Lv*H`*UUInlSVu1TvTkB<@{Ti1nJz<yKRN?OMz?a%Ec;=3gG({l?#I^e?~Fve%r~HC{0TTBh5brgbV+64qv$JtRk@bbMSAD"
        r"HahWBlKF`K@FfPcDvWZ62bt<cr$)HRk<he)BlvHd(xy$7!;;(kU*<YHHE_dfYXY!We}FW^(t*91n-Lnm_}qOgm~mZpK{DNbg"
        r"8gPo)<t(Z3t`(jU;M;!G=ZxZz|-0o_Vo=GQzRua0tFJ=P=pF&}nFp;z)1r<221jB?_woh5>VeQtT5L>$9@*onLX*mzw"
    ),
}
